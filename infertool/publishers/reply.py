"""The reply publisher: sends replies to the queues that requests name, over the consumer's connection to the broker.

It shares that connection because a reply and the ack of its request belong together: when the connection is lost, both
are open again. Adapters whose broker may stop taking messages send over a connection of their own.

A reply that nobody can get (its queue is gone, or is none, or must not be written to) is counted and confirmed: neither
a second try nor a dead letter would bring it to its caller. In place of a large one, which may be more than the broker
takes, its caller is sent a failure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from msgspec import Struct

from infertool import codec
from infertool.brokers.port import Broker
from infertool.errors import ConnectionLostError, InfertoolError, RefusedError
from infertool.message import Outgoing
from infertool.net.timing import FullJitter, Timers
from infertool.publishers.port import Confirmation, OnSettled, Publication, PublisherClosedError
from infertool.telemetry.signals import NONE_UNCONFIRMED, Observe, Replied, ReplyLost, Unconfirmed
from infertool.text.sanitize import printable

T = TypeVar("T")

# Waits before a reply is sent again whose confirmation was lost with the connection, or did not come in time.
AGAIN: Final = FullJitter(base_s=0.2, cap_s=10.0)
# A reply up to this size is not refused for its size. Bytes.
_SMALL: Final = 65_536
# Stage of that failure: the model has done its work, and no dead letter has it.
_STAGE: Final = "reply"
_LONGEST_ERROR: Final = 1000


class ReplyPublisher(Generic[T]):
    """Sends `reply_of(publication)`, and confirms once the broker has; one without a reply is confirmed at once.

    A reply's destination is as the request names it. The consumer's window bounds what is unconfirmed.
    """

    name = "the reply queue"
    batch = 1

    def __init__(self, broker: Broker, reply_of: Callable[[Publication[T]], Outgoing | None], observe: Observe) -> None:
        self._broker = broker
        self._reply_of = reply_of
        self._observe = observe
        self._on_settled: OnSettled[T] | None = None
        self._later = Timers("replies", self.stop)
        self._changed = threading.Condition()
        # Replies without a confirmation, and the times of their first sends (monotonic, seconds).
        self._open: dict[_Sending[T], float] = {}
        self._stopped = False

    def start(self) -> None:
        """Start the thread that sends again."""
        self._later.start()

    def report_to(self, on_settled: OnSettled[T]) -> None:
        """Report to `on_settled`, from the broker's threads and the thread that publishes."""
        self._on_settled = on_settled

    def publish(self, publications: Sequence[Publication[T]], *, crashes: int = 0) -> None:  # noqa: ARG002  (the port)
        """Send the replies; see `infertool.publishers.port.Publisher`."""
        if self._stopped:
            raise PublisherClosedError("the replies are stopped")
        replies = [(publication, self._reply_of(publication)) for publication in publications]
        sendings = [_Sending(publication, reply) for publication, reply in replies if reply]
        now = time.monotonic()
        with self._changed:
            for sending in sendings:
                self._open[sending] = now
        self._send(sendings)
        if unasked := [publication for publication, reply in replies if not reply]:
            self._report([Confirmation(publication, "no reply asked for") for publication in unasked])

    def widen(self, window: int) -> None:
        """Do nothing: the consumer's window is the only bound."""

    def pending(self) -> Unconfirmed:
        """Return the number of replies without a confirmation, and the age of the oldest."""
        with self._changed:
            if not self._open:
                return NONE_UNCONFIRMED
            return Unconfirmed(len(self._open), time.monotonic() - next(iter(self._open.values())))

    def stop(self) -> None:
        """Take nothing any more, and send nothing again."""
        self._stopped = True
        self._later.stop()

    def drain(self, timeout_s: float) -> bool:
        """Wait until every reply is confirmed, or known to be lost."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout_s)

    def close(self, timeout_s: float) -> None:  # noqa: ARG002  (the port)
        """Stop; the connection is the consumer's."""
        self.stop()

    def _send(self, sendings: Sequence[_Sending[T]]) -> None:
        """Give replies to the broker, once more."""
        messages: list[tuple[Outgoing, _Sending[T]]] = []
        refused: list[tuple[_Sending[T], Exception | None]] = []
        for sending in sendings:
            sending.tries += 1
            try:
                messages.append((self._addressed(sending.reply), sending))
            except InfertoolError as error:
                refused.append((sending, error))
        if messages:
            self._broker.send_all(messages, self._on_ends)
        if refused:
            self._on_ends(refused)

    def _addressed(self, reply: Outgoing) -> Outgoing:
        """Return a reply as the broker spells it. Raises `UsageError` for what is no queue."""
        spelling = self._broker.conventions
        queue = spelling.reply_queue(reply.destination)
        # A producer's event id may be of any length.
        headers = {name: value for name, value in reply.headers.items() if spelling.fits(name, value)}
        return Outgoing(queue, reply.body, reply.kind, headers, reply.properties, reply.types)

    def _on_ends(self, ends: Sequence[tuple[_Sending[T], Exception | None]]) -> None:
        """Take the broker's word for replies."""
        settled: list[Confirmation[T]] = []
        done: list[_Sending[T]] = []
        for sending, error in ends:
            publication = sending.publication
            if isinstance(error, ConnectionLostError):
                self._later.after(AGAIN.wait(sending.tries), partial(self._send, [sending]))
                continue
            if error is not None and not sending.is_lost:
                sending.is_lost = True
                self._observe(ReplyLost(publication.event_id, sending.reply.destination, _reason(error)))
                if len(sending.reply.body) > _SMALL and not self._stopped:
                    sending.reply = _failure(sending.reply, _reason(error))
                    self._later.after(0, partial(self._send, [sending]))
                    continue
            done.append(sending)
            settled.append(Confirmation(publication, "undeliverable" if sending.is_lost else "broker"))
        if replied := sum(error is None and not sending.is_lost for sending, error in ends):
            self._observe(Replied(replied))
        if not done:
            return
        self._report(settled)
        with self._changed:
            for sending in done:
                self._open.pop(sending, None)
            if not self._open:
                self._changed.notify_all()

    def _report(self, confirmations: Sequence[Confirmation[T]]) -> None:
        assert self._on_settled is not None  # noqa: S101  (`report_to` comes before `publish`)
        self._on_settled(confirmations, ())


class _Sending(Struct, Generic[T], eq=False):
    """One reply on its way: sent again after a lost connection, until the broker has answered for it.

    `is_lost`: it cannot be delivered, and `reply` may be the failure in its place.
    """

    publication: Publication[T]
    reply: Outgoing
    tries: int = 0
    is_lost: bool = False


def _failure(reply: Outgoing, reason: str) -> Outgoing:
    """Return what the caller gets in place of a reply."""
    used = codec.for_content_type(reply.properties.content_type or "") or codec.JSON
    document = {
        "status": "FAILED",
        "error": f"the reply of {len(reply.body)} bytes cannot be delivered: {printable(reason)}"[:_LONGEST_ERROR],
        "error_type": "UndeliverableReply",
        "stage": _STAGE,
        "event_id": printable(reply.headers.get("event_id", "")),
    }
    headers = {**reply.headers, "status": "FAILED"}
    return Outgoing(reply.destination, used.encode(document), reply.kind, headers, reply.properties, reply.types)


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError) and error.reason:
        return error.reason
    return error.what if isinstance(error, InfertoolError) else f"{type(error).__name__}: {error}"
