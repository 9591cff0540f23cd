"""Network utilities: TLS, backoff, connection state, write buffer, identification of a server's protocol."""
