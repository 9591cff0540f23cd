"""infertool.app."""
