"""A record played again, at the pace it was written in or another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from infertool.errors import UsageError
from infertool.feed.arrival import Arrival, OnArrivals

AT_ONCE = 0.0
# So that a long record does not become one batch, and `stop` is heard.
_BATCH = 500


def parse_speed(text: str) -> float:
    """Return the factor in `text`: 1 is the pace of the record, 10 is ten times that, max (0) at once.

    Raises `UsageError`.
    """
    try:
        speed = AT_ONCE if text == "max" else float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < float("inf"):
        raise UsageError(f"{text!r} is no speed", advice="write for example 1, 0.5, 10 or max")
    return speed


class Playback:
    """Hands over recorded arrivals as they came: those of one instant together, in order, from a thread of its own.

    `batches` are what `RecordReader.batches` yields. An arrival older than one before it comes at once. `on_end` is
    called at the end, also when reading failed: then with the error.
    """

    def __init__(
        self,
        batches: Iterable[Sequence[Arrival]],
        *,
        speed: float,
        on_arrivals: OnArrivals,
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self._batches = batches
        self._speed = speed
        self._on_arrivals = on_arrivals
        self._on_end = on_end
        self._stopped = threading.Event()
        self._begun: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._run, name="playback", daemon=True)

    def start(self) -> None:
        """Start to play."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Play nothing more; wait up to `timeout_s` for the thread, which may be waiting for standard input."""
        self._stopped.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            for batch in self._batches:
                self._play(batch)
                if self._stopped.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - told to the owner, who raises it where people see it
            failure = error
        self._on_end(failure)

    def _play(self, batch: Sequence[Arrival]) -> None:
        """Hand over `batch`, each arrival when it is due, those due already together."""
        due: list[Arrival] = []
        for arrival in batch:
            wait_s = self._wait_s(arrival)
            if due and (wait_s > 0 or len(due) >= _BATCH):
                self._on_arrivals(due)
                due = []
            if self._stopped.is_set() or (wait_s > 0 and self._stopped.wait(wait_s)):
                return
            due.append(arrival)
        if due:
            self._on_arrivals(due)

    def _wait_s(self, arrival: Arrival) -> float:
        """Return how long the arrival is to wait still, in seconds."""
        if self._speed == AT_ONCE:
            return 0.0
        now = time.monotonic()
        if self._begun is None:
            self._begun = (arrival.at, now)
        first, began = self._begun
        return (arrival.at - first) / self._speed - (now - began)
