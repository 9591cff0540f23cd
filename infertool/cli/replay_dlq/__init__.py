"""infertool.cli.replay_dlq."""
