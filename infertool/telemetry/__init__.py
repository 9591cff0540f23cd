"""Telemetry: signals of the consumer, and their observers: statistics and logs."""
