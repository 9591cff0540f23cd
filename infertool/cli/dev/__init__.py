"""infertool.cli.dev."""
