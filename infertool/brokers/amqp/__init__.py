"""AMQP 0-9-1: RabbitMQ.

pika has the methods of the protocol; the rest is our own, as it is for STOMP. Its connections belong to one thread
each, which every ack and every send of another thread would have to wake, and a message passes through several objects
and callbacks. Its field tables lose the fractions of floats, and cannot send them at all (1.4.4).
"""
