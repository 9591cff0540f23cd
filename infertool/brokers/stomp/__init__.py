"""STOMP, for ActiveMQ and the embedded broker."""
