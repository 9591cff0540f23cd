"""infertool.cli.drain_dlq."""
