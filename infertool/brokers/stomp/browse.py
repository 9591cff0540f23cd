"""Looking at a queue without taking anything from it: ActiveMQ's `browser:true`."""

from __future__ import annotations

import os
import secrets
import threading
import time
from dataclasses import replace
from typing import Final

from infertool.brokers.port import MOST_BROWSED_BYTES
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.frames import Frame
from infertool.brokers.stomp.messages import to_message
from infertool.brokers.stomp.unreadable import Unreadable
from infertool.errors import ConnectionLostError
from infertool.message import Message

_SUBSCRIPTION: Final = "browse"


def browse(main: Connection, name: str, queue: str, *, limit: int, timeout_s: float, selector: str) -> list[Message]:
    """Return what the broker shows of `queue`, at most `limit`, but for what cannot be read. Raises ServerError."""
    deadline = time.monotonic() + timeout_s
    unreadable = Unreadable(queue, failures=1)
    headers = {"selector": selector} if selector else {}
    while True:
        target = replace(main.target, connect_timeout_s=min(timeout_s, main.target.connect_timeout_s))
        shown = _Shown(queue, limit)
        connection = Connection(target, 0, f"{name}-browse-{os.getpid()}-{secrets.token_hex(3)}", shown.on_end)
        try:
            return _browse(connection, queue, limit, deadline, unreadable.selecting(headers), shown)
        except ConnectionLostError:
            if not unreadable.note(connection.suspect, connection.reason):
                raise


def _browse(
    connection: Connection, queue: str, limit: int, deadline: float, headers: dict[str, str], shown: _Shown
) -> list[Message]:
    """Browse once.

    On a connection of its own: ending that is the only way to stop a browse, and a browse that stalls (the broker waits
    for a client that does not read) must not hold up acks.
    """
    connection.open()
    try:
        # A large prefetch, or ActiveMQ waits for acks in between, four times as long for a page.
        headers |= {"browser": "true", "activemq.prefetchSize": str(limit)}
        answer = connection.subscribe(queue, _SUBSCRIPTION, shown.take, ack="auto", headers=headers)
        if not answer.wait(deadline - time.monotonic()):
            address = connection.target.address
            raise ConnectionLostError(f"{address} did not answer the browse in time", address=address)
        return shown.wait(deadline - time.monotonic(), connection)
    finally:
        connection.end("the browse is over")
        connection.join()


class _Shown:
    """Collects messages until the broker says `browser:end`, the limit is reached, or the connection ends."""

    def __init__(self, queue: str, limit: int) -> None:
        self._queue = queue
        self._limit = limit
        self._bytes = 0
        self._messages: list[Message] = []
        self._over = threading.Event()

    def take(self, frames: list[Frame]) -> None:
        """Take a batch from the reader."""
        for frame in frames:
            if self._over.is_set():
                return
            # Any message may have a property `browser`; what ends a browse has no time.
            if frame.headers.get("browser") == "end" and "timestamp" not in frame.headers:
                self._over.set()
            else:
                self._add(to_message(frame, self._queue, 0))

    def _add(self, message: Message) -> None:
        self._messages.append(message)
        self._bytes += len(message.body)
        if len(self._messages) >= self._limit or self._bytes >= MOST_BROWSED_BYTES:
            self._over.set()

    def on_end(self, _connection: Connection) -> None:
        """Wake who waits: nothing more will come."""
        self._over.set()

    def wait(self, timeout_s: float, connection: Connection) -> list[Message]:
        """Return the messages. Time running out is no error: what came was seen. Raises ConnectionLostError."""
        self._over.wait(timeout_s)
        if connection.reason:
            raise ConnectionLostError(
                f"the connection to {connection.target.address} was lost while browsing: {connection.reason}",
                address=connection.target.address,
            )
        return list(self._messages)
