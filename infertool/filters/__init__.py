"""infertool.filters."""
