"""infertool.text."""
