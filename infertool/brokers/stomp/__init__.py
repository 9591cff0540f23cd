"""STOMP 1.2 brokers (ActiveMQ Classic first of all), on stomp.py."""
