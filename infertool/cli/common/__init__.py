"""infertool.cli.common."""
