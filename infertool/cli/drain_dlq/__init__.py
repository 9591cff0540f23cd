"""`infertool drain-dlq`: archive dead letters and remove them."""
