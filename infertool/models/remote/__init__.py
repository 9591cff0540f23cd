"""Models behind HTTP: the client with its errors, the circuit breaker, and two protocols."""
