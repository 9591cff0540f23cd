"""`infertool loadgen`: send load, report on it."""
