"""infertool.cli.consume."""
