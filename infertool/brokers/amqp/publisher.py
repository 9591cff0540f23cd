"""Confirmed sends: a channel in confirm mode, and the sends that have no confirmation yet."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from infertool.brokers import callbacks
from infertool.brokers.amqp import frames, messages, properties, refusals, tables
from infertool.brokers.amqp.channel import Confirming
from infertool.brokers.amqp.conventions import DIRECT_REPLY
from infertool.brokers.port import OnEnds, OnSent
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError
from infertool.message import Outgoing
from infertool.net.timing import seconds_for

if TYPE_CHECKING:
    from infertool.brokers.amqp.connection import Connection
    from infertool.brokers.amqp.session import SizeLimit

_MOST_OPEN: Final = 500
_MOST_BYTES: Final = 8 * 1024 * 1024
_FORBIDDEN: Final = "ACCESS_REFUSED"
FULL: Final = "it did not take the message: the queue is full (reject-publish), or cannot be written"


@dataclass(slots=True)
class _Sent:
    """A message without a confirmation, and whom to tell of its end, by which token.

    RabbitMQ sends what it cannot route back before it confirms it.
    """

    deadline: float
    size: int
    on_ends: OnEnds
    token: Any
    queue: str
    message_id: str
    returned: bool = False


class Publisher(Confirming):
    """Every send is answered exactly once, by the connection's reader."""

    def __init__(self, connection: Connection, size_limit: SizeLimit) -> None:
        super().__init__(connection)
        self._size_limit = size_limit
        self._address = connection.target.address
        self._writing = threading.Lock()
        self._changed = threading.Condition(threading.Lock())
        self._open: dict[int, _Sent] = {}
        self._bytes = 0
        self._sent = 0
        self._lost: ConnectionLostError | None = None
        # Ends that came with the last bytes, not yet told.
        self._ended: list[_End] = []

    def send(self, outgoing: Outgoing, on_sent: OnSent, timeout_s: float, room_s: float | None = None) -> None:
        """Send. Waits while 500 sends, or 8 MiB, are unconfirmed, and while the broker takes none.

        Raises RefusedError for what AMQP cannot hold, ReceiptTimeoutError when the broker took nothing for `room_s`,
        by default `timeout_s`.
        """
        data, message_id = self._encoded(outgoing)
        size = len(outgoing.body)
        if not self.connection.is_own_thread():
            self._wait_for_room(timeout_s if room_s is None else room_s)
        deadline = time.monotonic() + timeout_s + seconds_for(size)
        self._write(data, [_Sent(deadline, size, partial(_tell_one, on_sent), None, outgoing.destination, message_id)])

    def send_all(self, pairs: Sequence[tuple[Outgoing, Any]], on_ends: OnEnds, timeout_s: float) -> None:
        """Send messages in one write; `on_ends` gets what stands beside each. Waits as `send`.

        Raises ConnectionLostError; then nothing was sent, and nobody is told.
        """
        refused: list[tuple[Any, Exception | None]] = []
        parts: list[bytes] = []
        batch: list[_Sent] = []
        now = time.monotonic()
        for outgoing, token in pairs:
            try:
                data, message_id = self._encoded(outgoing)
            except RefusedError as error:
                refused.append((token, error))
                continue
            size = len(outgoing.body)
            parts.append(data)
            deadline = now + timeout_s + seconds_for(size)
            batch.append(_Sent(deadline, size, on_ends, token, outgoing.destination, message_id))
        if batch:
            if not self.connection.is_own_thread():
                self._wait_for_room(timeout_s)
            self._write(b"".join(parts), batch)
        if refused:
            on_ends(refused)

    def _encoded(self, outgoing: Outgoing) -> tuple[bytes, str]:
        """Return the frames of a message, and its id. Raises RefusedError."""
        most = self._size_limit.most
        if most is not None and len(outgoing.body) > most:
            # The broker would close the channel, and with it end what other messages wait for.
            raise refusals.too_large(len(outgoing.body), most, self._address)
        fields = messages.to_fields(outgoing, self._address)
        encoded = messages.encoded(fields, self._address, self.connection.frame_max)
        try:
            head = frames.publish_head(self.number, outgoing.destination)
        except tables.TableError as fault:
            raise RefusedError(
                f"{outgoing.destination[:80]!r} is no queue: {fault}", address=self._address, reason=str(fault)
            ) from None
        content = frames.content(self.number, encoded, outgoing.body, self.connection.frame_max)
        return head + content, fields.message_id or ""

    def _write(self, data: bytes, batch: Sequence[_Sent]) -> None:
        # The broker counts in the order of the wire. The reader, which takes its confirmations, does not wait for that.
        with self._writing:
            with self._changed:
                if self._lost:
                    raise self._lost
                for sent in batch:
                    self._sent += 1
                    self._open[self._sent] = sent
                    self._bytes += sent.size
            self.connection.write(data)

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

    def on_blocked(self) -> None:
        """See `Channel`."""
        with self._changed:
            self._changed.notify_all()

    def expire(self, now: float) -> None:
        """Answer sends whose time is over."""
        with self._changed:
            late = [tag for tag, sent in self._open.items() if sent.deadline <= now]
            taken = self._take(late)
        blocked = f": {self.connection.blocked}" if self.connection.blocked else ""
        error = ReceiptTimeoutError(f"{self._address} sent no receipt in time{blocked}", address=self._address)
        _tell([(sent, error) for sent in taken])

    def lost(self, error: ConnectionLostError) -> None:
        """See `Channel`."""
        super().lost(error)
        # The broker may come back with another limit.
        self._size_limit.most = None
        taken = self._end(error)
        # Confirmed before, and the bytes behind that were none of AMQP's.
        self.deliver()
        _tell([(sent, error) for sent in taken])

    def on_confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """See `Confirming`."""
        with self._changed:
            taken = self._take(self._up_to(tag) if multiple else (tag,))
        self._ended += [(sent, self._verdict(sent, refused=refused)) for sent in taken]

    def deliver(self) -> None:
        """See `Channel`."""
        ended, self._ended = self._ended, []
        if ended:
            _tell(ended)

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
        """See `Channel`. What was refused is told by its size; else it is known of one send, or if none is allowed."""
        super().on_closed(refusal)
        lost = ConnectionLostError(str(refusal), address=self._address)
        taken = self._end(lost)
        most = refusals.most_bytes(refusal.reason)
        if most is not None:
            self._size_limit.most = most
            refused = [sent.size > most for sent in taken]
        else:
            refused = [len(taken) == 1 or refusal.reason.startswith(_FORBIDDEN)] * len(taken)
        _tell([(sent, refusal if is_refused else lost) for sent, is_refused in zip(taken, refused, strict=True)])
        self.connection.end(str(refusal))

    def _end(self, error: ConnectionLostError) -> list[_Sent]:
        """Take no more sends; return those that are open."""
        with self._changed:
            self._lost = error
            taken = self._take(list(self._open))
            self._changed.notify_all()
        return taken


_End = tuple[_Sent, Exception | None]


def _tell(ended: Sequence[_End]) -> None:
    """Tell of the ends of sends, each group of them at once."""
    groups: dict[OnEnds, list[tuple[Any, Exception | None]]] = {}
    for sent, error in ended:
        groups.setdefault(sent.on_ends, []).append((sent.token, error))
    for on_ends, ends in groups.items():
        callbacks.tell(on_ends, ends, callbacks.SEND)


def _tell_one(on_sent: OnSent, ends: Sequence[tuple[Any, Exception | None]]) -> None:
    [(_, error)] = ends
    on_sent(error)
