"""infertool.cli.watch."""
