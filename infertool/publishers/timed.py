"""A publisher that reports how long confirmations take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, Generic, TypeVar

from infertool.publishers.port import Confirmation, OnSettled, Publication, Publisher, Rejection
from infertool.telemetry.signals import ConfirmTimes, Observe, Unconfirmed

T = TypeVar("T")

_publication = attrgetter("publication")
# One publication in this time is timed: to time each would cost a quick model part of its rate. Seconds.
EVERY_S: Final = 0.01


class TimedPublisher(Generic[T]):
    """Passes everything on to `publisher`, and reports the seconds from `publish` to the confirmation. Thread-safe.

    It times the first of what is published together, at most each `EVERY_S`: also while others wait, so that slow
    confirmations are seen as often as they last. One that is published again with another payload is timed no more.
    """

    def __init__(self, publisher: Publisher[T], observe: Observe) -> None:
        self.name = publisher.name
        self.batch = publisher.batch
        self._publisher = publisher
        self._observe = observe
        self._begun: dict[int, float] = {}
        self._next = 0.0

    def start(self) -> None:
        """See `infertool.publishers.port.Publisher`."""
        self._publisher.start()

    def report_to(self, on_settled: OnSettled[T]) -> None:
        """See `infertool.publishers.port.Publisher`."""

        def settled(confirmations: Sequence[Confirmation[T]], rejections: Sequence[Rejection[T]]) -> None:
            if self._begun:
                self._report(confirmations, rejections)
            on_settled(confirmations, rejections)

        self._publisher.report_to(settled)

    def publish(self, publications: Sequence[Publication[T]], *, crashes: int = 0) -> None:
        """See `infertool.publishers.port.Publisher`."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY_S
            # A publication lives at least until it is settled, so that no other one has its id meanwhile.
            self._begun[id(publications[0])] = now
        self._publisher.publish(publications, crashes=crashes)

    def _report(self, confirmations: Sequence[Confirmation[T]], rejections: Sequence[Rejection[T]]) -> None:
        now = time.monotonic()
        for rejection in rejections:
            self._begun.pop(id(rejection.publication), None)
        # A copy of the keys: another thread may publish meanwhile.
        timed = set(map(id, map(_publication, confirmations))).intersection(tuple(self._begun))
        if timed:
            self._observe(ConfirmTimes([now - self._begun.pop(each) for each in timed]))

    def widen(self, window: int) -> None:
        """See `infertool.publishers.port.Publisher`."""
        self._publisher.widen(window)

    def pending(self) -> Unconfirmed:
        """See `infertool.publishers.port.Publisher`."""
        return self._publisher.pending()

    def stop(self) -> None:
        """See `infertool.publishers.port.Publisher`."""
        self._publisher.stop()

    def drain(self, timeout_s: float) -> bool:
        """See `infertool.publishers.port.Publisher`."""
        return self._publisher.drain(timeout_s)

    def close(self, timeout_s: float) -> None:
        """See `infertool.publishers.port.Publisher`."""
        self._publisher.close(timeout_s)
