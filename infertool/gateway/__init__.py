"""The HTTP gateway: requests in, messages to a broker, results back to whoever asked."""
