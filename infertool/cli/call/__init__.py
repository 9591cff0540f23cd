"""`infertool call`: send a request to a server behind a broker, and show its reply."""
