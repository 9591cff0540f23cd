"""A queue for replies on the in-process broker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from infertool.brokers import callbacks
from infertool.brokers.memory.connection import Connection
from infertool.brokers.memory.faults import Operation
from infertool.brokers.memory.queues import Stored
from infertool.brokers.memory.subscription import to_message
from infertool.brokers.port import OnMessages
from infertool.errors import ConnectionLostError


class MemoryReplies:
    """See `infertool.brokers.port.Replies`."""

    def __init__(self, on_replies: OnMessages, timeout_s: float, *, forget: Callable[[MemoryReplies], None]) -> None:
        self._on_replies = on_replies
        self._timeout_s = timeout_s
        self._forget = forget
        self._closed = False
        self.address: str | None = None

    def attach(self, connection: Connection) -> None:
        """Make the queue on a new connection. Raises `RefusedError`, `ConnectionLostError`."""
        connection.call(Operation.SUBSCRIBE, partial(self._open, connection), self._timeout_s)

    def _open(self, connection: Connection) -> None:
        """Make the queue, in the thread that also calls `lost`."""
        address = connection.server.open_replies(connection.session, partial(self._deliver, connection))
        if not self._closed:
            self.address = address

    def lost(self) -> None:
        """Note that the connection ended, and the queue with it."""
        self.address = None

    def close(self) -> None:
        """See `infertool.brokers.port.Replies`."""
        self._closed = True
        self.address = None
        self._forget(self)

    def _deliver(self, connection: Connection, deliveries: list[tuple[str, Stored]]) -> None:
        """Have the connection's own thread take them: this is the sender's, which holds the server's lock."""
        with contextlib.suppress(ConnectionLostError):
            connection.ask(Operation.REPLY, partial(self._take, connection, deliveries), _ignore, self._timeout_s)

    def _take(self, connection: Connection, deliveries: list[tuple[str, Stored]]) -> None:
        server = connection.server
        if connection.reason:
            return
        server.settle(connection.session, [token for token, _ in deliveries])
        if self._closed or self.address is None:
            return
        source, capabilities = self.address, server.capabilities
        messages = [to_message(stored, source, connection.epoch, token, capabilities) for token, stored in deliveries]
        callbacks.tell(self._on_replies, messages, callbacks.REPLIES)


def _ignore(_error: Exception | None) -> None:
    pass
