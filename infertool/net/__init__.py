"""Network utilities: TLS, backoff, connection state, timers, write buffer, identification of a server's protocol."""
