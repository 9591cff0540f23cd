"""Queues for replies over STOMP, and what can be told of other clients' queues."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from functools import partial

from infertool.brokers import callbacks
from infertool.brokers.port import OnMessages
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.conventions import PREFIX, REMOTE_TEMPORARY
from infertool.brokers.stomp.dialects import ReplyPlace
from infertool.brokers.stomp.frames import Frame, encode
from infertool.brokers.stomp.receipts import Answer
from infertool.errors import ConnectionLostError, RefusedError


class StompReplies:
    """See `infertool.brokers.port.Replies`."""

    def __init__(self, on_replies: OnMessages, *, name: str, forget: Callable[[StompReplies], None]) -> None:
        self._on_replies = on_replies
        self._name = name
        self._forget = forget
        # Held while the address changes: connections end at any time.
        self._lock = threading.Lock()
        self._attached: Connection | None = None
        self._place: ReplyPlace | None = None
        self._closed = False

    @property
    def address(self) -> str | None:
        """See `infertool.brokers.port.Replies`."""
        place = self._place
        return place.address if place else None

    def attach(self, connection: Connection) -> None:
        """Have a queue on `connection`, once. Raises RefusedError, ConnectionLostError; it has ended then."""
        if connection is self._attached or self._closed:
            return
        self._attached = connection
        place = connection.dialect.own_replies(secrets.token_hex(8))
        sink = partial(self._take, connection, place.address)
        subscription = place.subscription or self._name
        if place.subscribes:
            deadline = time.monotonic() + connection.target.receipt_timeout_s
            answer = connection.subscribe(place.address, subscription, sink, ack="auto", headers=dict(place.headers))
            connection.wait_for(answer, deadline, "the queue for replies")
        else:
            connection.deliver(subscription, sink)
        with self._lock:
            if not (connection.reason or self._closed):
                self._place = place

    def lost(self) -> None:
        """Note that the connection ended, and the queue with it."""
        with self._lock:
            self._place = None

    def close(self) -> None:
        """See `infertool.brokers.port.Replies`. The queue ends with its connection: no frame deletes it."""
        with self._lock:
            self._closed = True
            place, self._place = self._place, None
        if place and place.subscribes and self._attached:
            self._attached.unsubscribe(self._name)
        self._forget(self)

    def _take(self, connection: Connection, address: str, frames: list[Frame]) -> None:
        if not self._closed:
            callbacks.tell(partial(self._pass_on, connection, address), frames, callbacks.REPLIES)

    def _pass_on(self, connection: Connection, address: str, frames: list[Frame]) -> None:
        dialect = connection.dialect
        self._on_replies([dialect.message(frame, address, connection.epoch) for frame in frames])


def reply_exists(connection: Connection, address: str, timeout_s: float) -> bool | None:
    """Return False if nobody would get a message to `address`; None if the broker does not tell within `timeout_s`.

    ActiveMQ tells when a message is sent to a temporary queue, also in a transaction, which is aborted.
    """
    if address.startswith(PREFIX):
        # A queue keeps it. On Artemis it may be a caller's topic.
        return True if connection.dialect.remote_replies else None
    if connection.dialect.remote_replies != REMOTE_TEMPORARY or not address.startswith(REMOTE_TEMPORARY):
        return None if connection.dialect.takes(address) else False
    if connection.answers_here():
        return None
    answer = Answer()
    try:
        receipt = connection.receipts.expect(answer, timeout_s)
        within = {"transaction": receipt}
        send = encode("SEND", {"destination": address, "receipt": receipt, **within})
        connection.write(encode("BEGIN", within) + send + encode("ABORT", within))
        return answer.wait(timeout_s) or None
    except RefusedError:
        return False
    except ConnectionLostError:
        return None
