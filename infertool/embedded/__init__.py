"""Embedded servers for development: a STOMP broker and a Phoenix-compatible channel server, in memory."""
