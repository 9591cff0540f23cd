"""infertool.cli.loadgen."""
