"""infertool.cli.tail."""
