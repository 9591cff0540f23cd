"""Models behind HTTP: the client, what its failures mean, the circuit breaker, and the two protocols."""
