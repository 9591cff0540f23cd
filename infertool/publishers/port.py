"""The publisher port: a publication, its confirmation or rejection, and the publisher.

A publisher confirms a publication when the next system holds it. Only then the event behind it is acknowledged.

The port fits any destination. A publisher that needs to know more than a publication says, such as the address of a
reply, is built with a function of the context. Several publishers can be joined into one that publishes with a context
of its own and confirms when all of them have confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from infertool.errors import InfertoolError
from infertool.telemetry.signals import Unconfirmed

T = TypeVar("T")


class PublisherClosedError(InfertoolError):
    """The publisher takes nothing any more."""


class Publication(Struct, Generic[T], frozen=True, eq=False, gc=False):
    """A document to publish as `event`. `payload` is an encoded JSON object; `context` comes back with the result.

    `event_id` is stable over repeats, so that receivers can deduplicate. `reduced` is a smaller payload that may
    replace `payload` where the receiver crashes over that; empty when there is none.
    """

    event: str
    event_id: str
    payload: bytes
    context: T
    reduced: bytes = b""

    def __str__(self) -> str:
        """Return event and id, for people."""
        return f"{self.event} {self.event_id}"

    def without_payload(self) -> Publication[T]:
        """Return the publication of `reduced`."""
        return Publication(self.event, self.event_id, self.reduced, self.context)


class Confirmation(Struct, Generic[T], frozen=True, gc=False):
    """The next system holds `publication`. `confirmed_by` names what confirmed it, such as reply or echo."""

    publication: Publication[T]
    confirmed_by: str


class Rejection(Struct, Generic[T], frozen=True, gc=False):
    """The receiver does not take `publication`.

    `crashes` counts the crashes of the receiver in which the publication was unconfirmed, if that is why; else it is 0.
    Publish it again with that number, or not at all.
    """

    publication: Publication[T]
    reason: str
    crashes: int = 0


OnSettled = Callable[[Sequence[Confirmation[T]], Sequence[Rejection[T]]], None]


class Publisher(Protocol[T]):
    """Publishes documents and reports, for each, a confirmation or a rejection. Thread-safe.

    It bounds what is unconfirmed: `publish` blocks while the window is full. A connection that changes, a pause and a
    warning are signals (`infertool.telemetry.signals`), which the status line shows.
    """

    @property
    def name(self) -> str:
        """The receiver's name, for people."""

    @property
    def batch(self) -> int:
        """The size of requests that the window is made for; 1 where each publication has its own, or sizes adapt."""

    def start(self) -> None:
        """Connect. Raises `UnreachableError`, `RefusedError` or `JoinRefusedError`."""

    def report_to(self, on_settled: OnSettled[T]) -> None:
        """Report to `on_settled`, from the publisher's threads. Called once, before the first `publish`.

        `on_settled` must be quick. It must not publish, stop or close, since it may run in the thread that reads.
        """

    def publish(self, publications: Sequence[Publication[T]], *, crashes: int = 0) -> None:
        """Send; blocks while the window is full. Raises `PublisherClosedError` once `stop` was called.

        `crashes` is that of the rejection after which the publications are published again.
        """

    def widen(self, window: int) -> None:
        """Have room for `window` publications without a result: the consumer may have that many from now on.

        A publisher whose window is set keeps it.
        """

    def pending(self) -> Unconfirmed:
        """Return the number of requests without a result, and the age of the oldest."""

    def stop(self) -> None:
        """Take nothing any more, and wake the threads that wait in `publish`."""

    def drain(self, timeout_s: float) -> bool:
        """Wait until every publication has its result. Returns False if `timeout_s` ran out."""

    def close(self, timeout_s: float) -> None:
        """Disconnect. What is unconfirmed gets no result."""
