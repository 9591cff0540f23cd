"""The thread that lets the window grow while the broker allows, and batches with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sized
from typing import Final, Protocol

from infertool.brokers.port import Widens
from infertool.consumer.batching.policy import AdaptiveBatches
from infertool.consumer.batching.window import GrowingWindow
from infertool.consumer.guarded import Fail, guarded_thread
from infertool.errors import RefusedError

# Time between two looks. Seconds.
LOOK_S: Final = 0.05


class Waiting(Protocol):
    """Where events wait for workers."""

    def waiting(self) -> int:
        """Return how many events wait."""


class Admitting(Sized, Protocol):
    """The events in flight."""

    admitted: int
    """Events that were ever taken in."""


class WindowGrowth:
    """Looks whether the window is what keeps batches small; `on_grown` is called with its new size."""

    def __init__(
        self,
        window: GrowingWindow,
        batches: AdaptiveBatches,
        subscription: Widens,
        queue: Waiting,
        in_flight: Admitting,
        on_grown: Callable[[int], None],
        fail: Fail,
    ) -> None:
        self._window = window
        self._batches = batches
        self._subscription = subscription
        self._queue = queue
        self._in_flight = in_flight
        self._on_grown = on_grown
        self._admitted = 0
        self._stopped = threading.Event()
        self._thread = guarded_thread(self._run, "window", fail)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Does not wait for an answer of the broker."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_S):
            if not self._look():
                continue
            try:
                self._subscription.widen(self._window.value)
            except RefusedError:
                return  # the broker gives no more; what is there goes on
            self._on_grown(self._window.value)
            self._batches.limit(self._window.room)

    def _look(self) -> bool:
        before, self._admitted = self._admitted, self._in_flight.admitted
        return self._window.look(
            unsettled=len(self._in_flight),
            waiting=self._queue.waiting(),
            wanted=self._batches.wanted,
            moves=self._admitted > before,
        )
