"""A channel of an AMQP connection: one question at a time, and the messages that come on it."""

from __future__ import annotations

import contextlib
import queue
import struct
import threading
from typing import TYPE_CHECKING, Any, Final

from pika import spec

from infertool.brokers.amqp import frames, refusals
from infertool.brokers.amqp.frames import FrameError
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from infertool.brokers.amqp.connection import Connection
    from infertool.brokers.amqp.session import Session
    from infertool.message import Message

_CONTENT_METHODS: Final = frozenset({spec.Basic.Deliver.INDEX, spec.Basic.Return.INDEX, spec.Basic.GetOk.INDEX})
_NACK: Final = spec.Basic.Nack.INDEX
_CONFIRMATIONS: Final = frozenset({spec.Basic.Ack.INDEX, _NACK})
_CLOSE: Final = spec.Channel.Close.INDEX
_CLOSED: Final = spec.Channel.CloseOk.INDEX
_GOODBYE: Final = spec.Channel.Close(200, "", 0, 0)
_SIZE: Final = struct.Struct(">Q")
# The body's size in a header frame, behind class and weight; the flags behind it have two bytes.
_SIZE_AT: Final = 4
_LEAST_HEADER: Final = 14


class Channel:
    """Opened at once. The methods `on_…` are the reading thread's."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.number = connection.add(self)
        self._abandoned = False
        # True while there is something for `deliver_returned`.
        self.has_returned = False
        # What the broker closed it for.
        self.refusal: RefusedError | None = None
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # A message in the middle: the payloads of its method and header frames, the body so far, and what is missing.
        self._method = b""
        self._head = b""
        self._parts: list[bytes] = []
        self._missing = -1

    def open(self, timeout_s: float | None = None) -> None:
        """Open it. Raises ConnectionLostError, RefusedError."""
        self.call(spec.Channel.Open(), timeout_s)

    def call(self, method: Any, timeout_s: float | None = None) -> Any:
        """Have the broker do `method`, and return its answer.

        Raises RefusedError, after which the channel is closed, and ConnectionLostError when no answer comes: what the
        broker did is unknown. The connection has ended then, unless a time was given: that ends the channel only.
        """
        connection = self.connection
        with self._asking:
            if self.refusal:
                raise self.refusal
            connection.write(frames.encode(self.number, method))
            if connection.reason:
                raise connection.lost()
            try:
                limit_s = connection.target.receipt_timeout_s if timeout_s is None else timeout_s
                answer = self._answers.get(timeout=limit_s)
            except queue.Empty:
                raise self._late(method.NAME, ends=timeout_s is None) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _late(self, name: str, *, ends: bool) -> ConnectionLostError:
        connection = self.connection
        if ends:
            connection.end(f"no answer to {name} in time")
            return connection.lost()
        self.abandon()
        address = connection.target.address
        blocked = f": it takes no messages now: {connection.blocked}" if connection.blocked else ""
        return ReceiptTimeoutError(f"{address} did not answer a {name} in time{blocked}", address=address)

    def close(self) -> None:
        """Close it, if it is open, and the connection lives."""
        with contextlib.suppress(ConnectionLostError, RefusedError):
            self.call(_GOODBYE)
            self.connection.discard(self)

    def abandon(self) -> None:
        """Close it, and do not wait for the broker's word."""
        self._abandoned = True
        self.connection.write(frames.encode(self.number, _GOODBYE))

    def on_blocked(self) -> None:
        """Note that the broker takes no messages now, or takes them again."""

    def lost(self, error: ConnectionLostError) -> None:
        """Note that the connection has ended."""
        self._answers.put(error)

    def on_method(self, payload: bytes) -> None:
        """Handle a method. Raises FrameError."""
        number = frames.index(payload)
        if number in _CONTENT_METHODS:
            self._method, self._missing = payload, -1
        elif number == _CLOSE:
            closed = frames.decode(payload)
            self.connection.write(frames.encode(self.number, spec.Channel.CloseOk()))
            self.refusal = refusals.of(closed.reply_code, closed.reply_text, self.connection)
            self.connection.discard(self)
            self.on_closed(self.refusal)
        elif self._abandoned:
            if number == _CLOSED:
                self.connection.discard(self)
        elif not self.on_other(number, payload):
            self._answers.put(frames.decode(payload))

    def on_other(self, number: int, payload: bytes) -> bool:  # noqa: ARG002  # for channels that expect some
        """Handle a method that answers nothing; return False for any other. Raises FrameError."""
        return False

    def on_closed(self, refusal: RefusedError) -> None:
        """Note that the broker closed the channel."""
        self._answers.put(refusal)

    def on_header(self, payload: bytes) -> None:
        """Handle a header frame. Raises FrameError."""
        if not self._method or len(payload) < _LEAST_HEADER:
            raise FrameError("a header frame that belongs to no message")
        self._head, self._parts = payload, []
        self._missing = _SIZE.unpack_from(payload, _SIZE_AT)[0]
        if self._missing == 0:
            self._finish(b"")

    def on_body(self, payload: bytes) -> None:
        """Handle a part of a body. Raises FrameError."""
        missing = self._missing - len(payload)
        if missing < 0:
            raise FrameError("a body that is longer than its header says")
        self._missing = missing
        if missing:
            self._parts.append(payload)
        elif self._parts:
            self._finish(b"".join([*self._parts, payload]))
        else:
            self._finish(payload)

    def _finish(self, body: bytes) -> None:
        method, head = self._method, self._head
        self._method, self._head, self._parts, self._missing = b"", b"", [], -1
        self.on_content(method, head, body)

    def on_content(self, method: bytes, head: bytes, body: bytes) -> None:
        """Handle a message. Raises FrameError."""

    def deliver(self) -> None:
        """Hand on the messages or confirmations that came with the last bytes. Others may read on meanwhile."""

    def deliver_returned(self) -> None:
        """Hand on once more what was given back here, and not to the broker."""


class Receiving(Channel):
    """A channel to which a queue's messages come. `sink` takes them, those of one read together."""

    def __init__(self, session: Session, connection: Connection, sink: Callable[[list[Message]], None]) -> None:
        super().__init__(connection)
        self.session = session
        self._sink = sink
        self._messages: list[Message] = []
        self._begun = False

    def consume(self, method: spec.Basic.Consume) -> None:
        """Have messages come. Raises RefusedError, ConnectionLostError."""
        self.call(method)
        self._begun = True

    def deliver(self) -> None:
        """See `Channel`."""
        messages, self._messages = self._messages, []
        if messages:
            self._sink(messages)

    def on_other(self, number: int, payload: bytes) -> bool:  # noqa: ARG002  # a cancel says no more
        """See `Channel`."""
        if number != spec.Basic.Cancel.INDEX:
            return False
        self.on_cancelled()
        return True

    def on_cancelled(self) -> None:
        """Note that the queue was deleted."""

    def on_closed(self, refusal: RefusedError) -> None:
        """See `Channel`. What was delivered on it comes again, on a new connection."""
        super().on_closed(refusal)
        # Refused before, nothing was delivered, and the caller of `consume` is told.
        if self._begun:
            self.session.end(str(refusal))


class Confirming(Channel):
    """A channel in confirm mode: the broker confirms or refuses each message by its number."""

    def open(self, timeout_s: float | None = None) -> None:
        """See `Channel`."""
        super().open(timeout_s)
        self.call(spec.Confirm.Select(), timeout_s)

    def on_other(self, number: int, payload: bytes) -> bool:
        """See `Channel`."""
        if number not in _CONFIRMATIONS:
            return False
        tag, multiple = frames.confirmation(payload)
        self.on_confirmed(tag, multiple=multiple, refused=number == _NACK)
        return True

    def on_confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """Note the broker's answer to message number `tag`; `multiple`: and to those before it, 0 means all."""
