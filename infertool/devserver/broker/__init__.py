"""The embedded STOMP broker."""
