"""`infertool peek-dlq`: show dead letters."""
