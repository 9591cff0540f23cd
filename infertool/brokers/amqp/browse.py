"""Looking at a queue without harm. AMQP has no browsing: messages are got, not acked, and given back.

Measured on RabbitMQ 3.10.8. A classic queue takes them back to their places, marked as redelivered. A quorum queue
counts what is given back as a delivery, whichever way it is got (basic.get, a consumer, the management API), and with a
delivery limit it drops or dead-letters a message by that count: such a queue is looked at only if that is asked for. A
stream keeps what is read.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from pika import spec

from infertool.brokers.amqp import frames
from infertool.brokers.amqp.channel import Channel
from infertool.brokers.amqp.connection import Connection
from infertool.brokers.amqp.declare import Kind, kind, waiting
from infertool.brokers.amqp.messages import to_message
from infertool.brokers.amqp.session import Session
from infertool.brokers.port import MOST_BROWSED_BYTES, Browse
from infertool.errors import BrowseRefusedError, ConnectionLostError, ReceiptTimeoutError, RefusedError
from infertool.message import Message

if TYPE_CHECKING:
    from infertool.brokers.amqp.management import QueueFacts

COUNTED: Final = "broker.counted_browse"

# A stream has no end: after this silence it counts as shown. Seconds.
_SILENCE_S: Final = 1.0
_MOST_PREFETCH: Final = 65535
# Taken for a delivery limit that is not told: what RabbitMQ 4 sets where nothing else does.
_LIKELY_LIMIT: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is asked of one browse. `counted` allows looks that harm.

    `known` is what the management API tells of the queue; `untold` says why it tells nothing, and what to do.
    """

    queue: str
    limit: int
    timeout_s: float
    counted: bool = False
    known: QueueFacts | None = None
    untold: str = ""


def browse(session: Session, look: Look) -> Browse:
    """Return what waits in the queue, as far as it can be shown without harm.

    Raises `BrowseRefusedError`, `RefusedError`, `ConnectionLostError`.
    """
    deadline = time.monotonic() + look.timeout_s
    ask = partial(session.ask, timeout_s=look.timeout_s)
    found = waiting(ask, look.queue)
    if found is None:
        return Browse([], complete=False, depth=None)
    depth, consumers = found
    known = look.known
    what = Kind(known.type, known.delivery_limit) if known else kind(ask, look.queue)
    refuse = partial(_refuse, session.target.address, look.queue)
    match what.type:
        case "classic" | "stream":
            limit, note = None, ""
        case "quorum":
            limit, note = _allowed(look, what.delivery_limit, refuse)
        case other:
            why = f"its type {other} is unknown" if other else "the broker does not tell this user its type"
            refuse(why, look.untold)
    try:
        with _channel(session.consuming, look, deadline) as channel:
            if what.type == "stream":
                messages = channel.read_stream()
                return Browse(messages, complete=False, depth=None, note="a stream does not tell its depth")
            shown = channel.get(most_deliveries=None if limit is None else limit // 2)
    except RefusedError as refused:
        refuse(refused.reason, "")
    if shown.worn_out:
        note += f"; the last one shown came {shown.worn_out} times, so it ends there: do not look again"
    hidden = _hidden(consumers, known)
    notes = "; ".join(filter(None, (note, hidden)))
    return Browse(shown.messages, complete=shown.all and not hidden, depth=depth, note=notes)


def _allowed(look: Look, limit: int | None, refuse: Callable[[str, str], NoReturn]) -> tuple[int | None, str]:
    """Return the delivery limit of a quorum queue, None for none, and what is said of a look at it, if it may be."""
    counts = "each look at a quorum queue counts as a delivery"
    force = f"look all the same with peek-dlq --force ({COUNTED})"
    if look.known is None:
        if not look.counted:
            advice = "; or ".join(filter(None, (look.untold, force)))
            refuse(f"{counts}, and AMQP does not tell how many it allows", advice)
        likely = _LIKELY_LIMIT if limit is None else limit
        return likely, f"{counts}, and this one allows {likely}, or another number by a policy"
    if limit is None:
        return None, f"{counts}; this queue allows any number"
    if not look.counted:
        refuse(f"{counts}, and this one allows {limit}", f"archive it with drain-dlq, or {force}")
    return limit, f"{counts}, and this one allows {limit}"


@dataclass(slots=True)
class _Shown:
    """`all` is True if nothing waits behind. `worn_out` is the number of deliveries of the message that ended it."""

    messages: list[Message]
    all: bool = False
    worn_out: int = 0


class _Looking(Channel):
    """A channel on which messages are got and never acked: they go back to the queue with its end."""

    def __init__(self, connection: Connection, look: Look, deadline: float) -> None:
        super().__init__(connection)
        self._look = look
        self._deadline = deadline
        # Set when an answer did not come in time: the channel has ended then.
        self.given_up = False
        self._consumed: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def get(self, *, most_deliveries: int | None = None) -> _Shown:
        """Return the messages that wait. With `most_deliveries`, end at the first one that was delivered more often."""
        shown, size = _Shown([]), 0
        while len(shown.messages) < self._look.limit and size < MOST_BROWSED_BYTES and (left_s := self._left_s()) > 0:
            try:
                answer = self.call(spec.Basic.Get(queue=self._look.queue), left_s)
            except ReceiptTimeoutError:
                self.given_up = True
                break
            if isinstance(answer, spec.Basic.GetEmpty):
                shown.all = True
                break
            message, behind = answer
            shown.messages.append(message)
            shown.all = behind == 0
            size += len(message.body)
            deliveries = (message.properties.delivery_count or 0) + 1
            if most_deliveries is not None and deliveries > most_deliveries:
                shown.worn_out = deliveries
                break
        return shown

    def read_stream(self) -> list[Message]:
        """Return the messages of a stream, from its start on. A stream keeps them."""
        self.call(spec.Basic.Qos(prefetch_count=min(self._look.limit, _MOST_PREFETCH)), self._left_s())
        offset = {"x-stream-offset": "first"}
        self.call(spec.Basic.Consume(queue=self._look.queue, arguments=offset), self._left_s())
        messages: list[Message] = []
        while len(messages) < self._look.limit and (left_s := self._left_s()) > 0:
            try:
                message = self._consumed.get(timeout=min(left_s, _SILENCE_S))
            except queue.Empty:
                break
            if message is None:
                raise self.connection.lost()
            messages.append(message)
        return messages

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def on_content(self, method: bytes, head: bytes, body: bytes) -> None:
        """See `Channel`."""
        got = frames.decode(method)
        # Of no epoch, so that it cannot be settled.
        message = to_message(head, body, self._look.queue, 0, "", redelivered=got.redelivered)
        if isinstance(got, spec.Basic.GetOk):
            self._answers.put((message, got.message_count))
        else:
            self._consumed.put(message)

    def lost(self, error: ConnectionLostError) -> None:
        """See `Channel`."""
        super().lost(error)
        self._consumed.put(None)


@contextmanager
def _channel(connection: Connection, look: Look, deadline: float) -> Iterator[_Looking]:
    """Yield an open channel, and close it. Raises `RefusedError`, `ConnectionLostError`."""
    channel = _Looking(connection, look, deadline)
    channel.open(look.timeout_s)
    try:
        yield channel
    finally:
        if not channel.given_up:
            channel.close()


def _hidden(consumers: int, known: QueueFacts | None) -> str:
    """Return what may be in the hands of others; empty if nothing is."""
    if known and known.unacked:
        return f"{known.unacked} more are unacked, in the hands of consumers"
    if consumers == 1:
        return "what its consumer holds is not shown"
    return f"what its {consumers} consumers hold is not shown" if consumers else ""


def _refuse(address: str, queue: str, reason: str, advice: str) -> NoReturn:
    raise BrowseRefusedError(
        f"{address}: {queue} cannot be shown: {reason}", address=address, reason=reason, advice=advice
    )
