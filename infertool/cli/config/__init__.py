"""infertool.cli.config."""
