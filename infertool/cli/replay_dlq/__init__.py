"""`infertool replay-dlq`: send dead letters back."""
