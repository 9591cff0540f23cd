"""A publisher that reports how long confirmations take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Generic, TypeVar

from infertool.publishers.port import Confirmation, OnSettled, Publication, Publisher, Rejection
from infertool.telemetry.signals import ConfirmTimes, Observe, Unconfirmed

T = TypeVar("T")


class TimedPublisher(Generic[T]):
    """Passes everything on to `publisher`, and reports the seconds from `publish` to the confirmation. Thread-safe.

    A publication that is published again with another payload is timed no more.
    """

    def __init__(self, publisher: Publisher[T], observe: Observe) -> None:
        self.name = publisher.name
        self.batch = publisher.batch
        self._publisher = publisher
        self._observe = observe
        self._begun: dict[int, float] = {}

    def start(self) -> None:
        """See `infertool.publishers.port.Publisher`."""
        self._publisher.start()

    def report_to(self, on_settled: OnSettled[T]) -> None:
        """See `infertool.publishers.port.Publisher`."""

        def settled(confirmations: Sequence[Confirmation[T]], rejections: Sequence[Rejection[T]]) -> None:
            now = time.monotonic()
            begun = [self._begun.pop(id(each.publication), None) for each in confirmations]
            for rejection in rejections:
                self._begun.pop(id(rejection.publication), None)
            if times := [now - at for at in begun if at is not None]:
                self._observe(ConfirmTimes(times))
            on_settled(confirmations, rejections)

        self._publisher.report_to(settled)

    def publish(self, publications: Sequence[Publication[T]], *, crashes: int = 0) -> None:
        """See `infertool.publishers.port.Publisher`."""
        now = time.monotonic()
        # A publication lives at least until it is settled, so that no other one has its id meanwhile.
        self._begun.update(dict.fromkeys(map(id, publications), now))
        self._publisher.publish(publications, crashes=crashes)

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
