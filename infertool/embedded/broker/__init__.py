"""The embedded STOMP broker: in memory, compatible with ActiveMQ 5.17."""
