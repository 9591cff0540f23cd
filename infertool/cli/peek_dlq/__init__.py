"""infertool.cli.peek_dlq."""
