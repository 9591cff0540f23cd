"""`infertool gateway`."""
