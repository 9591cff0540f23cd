"""The reply publisher: sends replies to the queues that requests name, over the consumer's connection to the broker.

It shares that connection because a reply and the ack of its request belong together: when the connection is lost, both
are open again. Adapters whose broker may stop taking messages send over a connection of their own.

A reply that nobody can get (its queue is gone, or is none, or must not be written to) is counted and confirmed: neither
a second try nor a dead letter would bring it to its caller.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from infertool.brokers.port import Broker
from infertool.errors import ConnectionLostError, InfertoolError, RefusedError
from infertool.message import Outgoing
from infertool.net.timing import FullJitter, Timers
from infertool.publishers.port import Confirmation, OnSettled, Publication, PublisherClosedError
from infertool.telemetry.signals import NONE_UNCONFIRMED, Observe, Replied, ReplyLost, Unconfirmed

T = TypeVar("T")

# Waits before a reply is sent again whose confirmation was lost with the connection, or did not come in time.
AGAIN: Final = FullJitter(base_s=0.2, cap_s=10.0)


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
        self._later = Timers("replies")
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        # Replies without a confirmation, by number, and the times of their first sends (monotonic, seconds).
        self._open: dict[int, float] = {}
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
        unasked: list[Publication[T]] = []
        for publication in publications:
            reply = self._reply_of(publication)
            if reply is None:
                unasked.append(publication)
                continue
            with self._changed:
                number = next(self._numbers)
                self._open[number] = time.monotonic()
            _Sending(self, publication, reply, number).send()
        if unasked:
            self._report([Confirmation(publication, "no reply asked for") for publication in unasked])

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

    def dispatch(self, reply: Outgoing, on_sent: Callable[[Exception | None], None]) -> None:
        """Give a reply to the broker. Raises `UsageError`, `RefusedError`, `ConnectionLostError`."""
        spelling = self._broker.conventions
        queue = spelling.reply_queue(reply.destination)
        # A producer's event id may be of any length.
        headers = {name: value for name, value in reply.headers.items() if spelling.fits(name, value)}
        self._broker.send(dataclasses.replace(reply, destination=queue, headers=headers), on_sent, declare=False)

    def again(self, delay_s: float, send: Callable[[], None]) -> None:
        """Have `send` called after `delay_s`."""
        self._later.after(delay_s, send)

    def sent(self, number: int, publication: Publication[T]) -> None:
        """Note that the broker has a reply."""
        self._observe(Replied(1))
        self._finish(number, publication, "broker")

    def lost(self, number: int, publication: Publication[T], reply: Outgoing, reason: str) -> None:
        """Note that a reply cannot be delivered."""
        self._observe(ReplyLost(publication.event_id, reply.destination, reason))
        self._finish(number, publication, "undeliverable")

    def _finish(self, number: int, publication: Publication[T], confirmed_by: str) -> None:
        self._report([Confirmation(publication, confirmed_by)])
        with self._changed:
            self._open.pop(number, None)
            if not self._open:
                self._changed.notify_all()

    def _report(self, confirmations: Sequence[Confirmation[T]]) -> None:
        assert self._on_settled is not None  # noqa: S101  (`report_to` comes before `publish`)
        self._on_settled(confirmations, ())


class _Sending(Generic[T]):
    """One reply on its way: sent again after a lost connection, until the broker has answered for it."""

    def __init__(self, publisher: ReplyPublisher[T], publication: Publication[T], reply: Outgoing, number: int) -> None:
        self._publisher = publisher
        self._publication = publication
        self._reply = reply
        self._number = number
        self._tries = 0

    def send(self) -> None:
        """Send, once more."""
        self._tries += 1
        try:
            self._publisher.dispatch(self._reply, self._on_sent)
        except InfertoolError as error:
            self._on_sent(error)

    def _on_sent(self, error: Exception | None) -> None:
        if error is None:
            self._publisher.sent(self._number, self._publication)
        elif isinstance(error, ConnectionLostError):
            self._publisher.again(AGAIN.wait(self._tries), self.send)
        else:
            reason = _reason(error)
            self._publisher.lost(self._number, self._publication, self._reply, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError) and error.reason:
        return error.reason
    return error.what if isinstance(error, InfertoolError) else f"{type(error).__name__}: {error}"
