"""Confirmed sends: a channel in confirm mode, and the sends that have no confirmation yet."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infertool.brokers import callbacks
from infertool.brokers.amqp import frames, messages, properties, refusals, tables
from infertool.brokers.amqp.channel import Confirming
from infertool.brokers.amqp.conventions import DIRECT_REPLY
from infertool.brokers.port import OnSent
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError
from infertool.message import Outgoing
from infertool.net.timing import seconds_for

if TYPE_CHECKING:
    from infertool.brokers.amqp.connection import Connection

_MOST_OPEN: Final = 500
_MOST_BYTES: Final = 8 * 1024 * 1024
_FORBIDDEN: Final = "ACCESS_REFUSED"
FULL: Final = "it did not take the message: the queue is full (reject-publish), or cannot be written"


@dataclass(slots=True)
class _Sent:
    """A message without a confirmation. RabbitMQ sends what it cannot route back before it confirms it."""

    deadline: float
    size: int
    on_sent: OnSent
    queue: str
    message_id: str
    returned: bool = False


class Publisher(Confirming):
    """Every send is answered exactly once, by the connection's reader."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._address = connection.target.address
        self._changed = threading.Condition()
        self._open: dict[int, _Sent] = {}
        self._bytes = 0
        self._sent = 0
        self._lost: ConnectionLostError | None = None

    def send(self, outgoing: Outgoing, on_sent: OnSent, timeout_s: float, room_s: float | None = None) -> None:
        """Send. Waits while 500 sends, or 8 MiB, are unconfirmed, and while the broker takes none.

        Raises RefusedError for what AMQP cannot hold, ReceiptTimeoutError when the broker took nothing for `room_s`,
        by default `timeout_s`.
        """
        fields = messages.to_fields(outgoing, self._address)
        encoded = messages.encoded(fields, self._address)
        head = self._publish(outgoing.destination)
        data = head + frames.content(self.number, encoded, outgoing.body, self.connection.frame_max)
        size = len(outgoing.body)
        if not self.connection.is_own_thread():
            self._wait_for_room(timeout_s if room_s is None else room_s)
        deadline = time.monotonic() + timeout_s + seconds_for(size)
        sent = _Sent(deadline, size, on_sent, outgoing.destination, fields.message_id or "")
        with self._changed:
            if self._lost:
                raise self._lost
            self._sent += 1
            self._open[self._sent] = sent
            self._bytes += size
            # Within the lock: the broker counts in the order of the wire.
            self.connection.write(data)

    def _publish(self, queue: str) -> bytes:
        try:
            return frames.publish_head(self.number, queue)
        except tables.TableError as fault:
            raise RefusedError(
                f"{queue[:80]!r} is no queue: {fault}", address=self._address, reason=str(fault)
            ) from None

    def _wait_for_room(self, timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(self._has_room, timeout_s) and not self._lost:
                blocked = self.connection.blocked
                why = f"takes no messages now: {blocked}" if blocked else "confirms nothing"
                raise ReceiptTimeoutError(f"{self._address} {why}; a send waited in vain", address=self._address)

    def _has_room(self) -> bool:
        if self._lost is not None:
            return True
        return not self.connection.blocked and len(self._open) < _MOST_OPEN and self._bytes < _MOST_BYTES

    def wake(self) -> None:
        """Have those that wait for room look again."""
        with self._changed:
            self._changed.notify_all()

    def expire(self, now: float) -> None:
        """Answer sends whose time is over."""
        with self._changed:
            late = [tag for tag, sent in self._open.items() if sent.deadline <= now]
            taken = self._take(late)
        blocked = f": {self.connection.blocked}" if self.connection.blocked else ""
        error = ReceiptTimeoutError(f"{self._address} sent no receipt in time{blocked}", address=self._address)
        for sent in taken:
            callbacks.tell(sent.on_sent, error, callbacks.SEND)

    def lost(self, error: ConnectionLostError) -> None:
        """See `Channel`."""
        super().lost(error)
        with self._changed:
            self._lost = error
            taken = self._take(list(self._open))
            self._changed.notify_all()
        for sent in taken:
            callbacks.tell(sent.on_sent, error, callbacks.SEND)

    def on_confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """See `Confirming`."""
        with self._changed:
            taken = self._take(self._up_to(tag) if multiple else (tag,))
        for sent in taken:
            callbacks.tell(sent.on_sent, self._verdict(sent, refused=refused), callbacks.SEND)

    def _up_to(self, tag: int) -> list[int]:
        """Return the open sends up to number `tag`, 0 for all."""
        return list(itertools.takewhile(lambda number: not tag or number <= tag, self._open))

    def _take(self, tags: Iterable[int]) -> list[_Sent]:
        taken = [sent for tag in tags if (sent := self._open.pop(tag, None))]
        self._bytes -= sum(sent.size for sent in taken)
        if taken:
            self._changed.notify_all()
        return taken

    def _verdict(self, sent: _Sent, *, refused: bool) -> RefusedError | None:
        # What goes to a direct reply address arrives, and comes back all the same (measured on RabbitMQ 3.10).
        if sent.returned and not sent.queue.startswith(DIRECT_REPLY):
            return refusals.missing(sent.queue, self.connection.vhost, self._address)
        if refused:
            return RefusedError(
                f"{self._address} refused a message to {sent.queue}: {FULL}", address=self._address, reason=FULL
            )
        return None

    def on_content(self, method: bytes, head: bytes, body: bytes) -> None:  # noqa: ARG002  # it is sent already
        """See `Channel`: a message that came back. It is found by its queue and id."""
        returned = frames.decode(method)
        try:
            message_id = properties.decode(head, 12).message_id
        except tables.TableError:
            message_id = None
        queue = str(returned.routing_key)
        with self._changed:
            for sent in self._open.values():
                if sent.queue == queue and sent.message_id == message_id and not sent.returned:
                    sent.returned = True
                    return

    def on_closed(self, refusal: RefusedError) -> None:
        """See `Channel`: of several sends it is not known which one was refused, unless the user may send nothing."""
        super().on_closed(refusal)
        with self._changed:
            taken = self._take(list(self._open))
            self._sent = 0
        known = len(taken) == 1 or refusal.reason.startswith(_FORBIDDEN)
        for sent in taken:
            callbacks.tell(
                sent.on_sent,
                refusal if known else ConnectionLostError(str(refusal), address=self._address),
                callbacks.SEND,
            )
        self.connection.end(str(refusal))
