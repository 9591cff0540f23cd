"""`infertool dashboards`."""
