"""What a client did wrong."""

from __future__ import annotations


class ProtocolError(Exception):
    """Becomes an ERROR frame. `fatal` closes the connection after it, as ActiveMQ does in few cases only."""

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.fatal = fatal
