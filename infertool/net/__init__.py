"""infertool.net."""
