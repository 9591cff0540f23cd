"""infertool.cli.demo."""
