"""The book of a run: what was sent, what came out, and what that adds up to. All in one process, on one clock."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from infertool.telemetry.latencies import Latencies, Percentiles


@dataclass(frozen=True, slots=True)
class Tally:
    """The sums of a run. `lost` were sent and never seen; `duplicates` are further sightings of the same event."""

    sent: int
    results: int
    failures: int
    lost: int
    duplicates: int
    latency_ms: Percentiles


class SendBook:
    """Thread-safe. An event counts by its first sighting, as result or failure."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._open: dict[str, float] = {}
        self._seen: dict[str, bool] = {}
        self._sent = 0
        self._results = 0
        self._duplicates = 0
        self._latencies = Latencies()

    def sent(self, event_id: str, at: float) -> None:
        """Note that an event was sent at `at` (monotonic)."""
        with self._lock:
            self._open[event_id] = at
            self._sent += 1

    def unsent(self, event_id: str) -> None:
        """Take an event back: the broker did not confirm it."""
        with self._lock:
            if self._open.pop(event_id, None) is not None:
                self._sent -= 1

    def seen(self, event_id: str, *, success: bool) -> None:
        """Note that a result or a failure came out. Events of others are ignored."""
        with self._lock:
            sent_at = self._open.pop(event_id, None)
            if sent_at is not None:
                self._seen[event_id] = success
                self._results += success
                self._latencies.add([time.monotonic() - sent_at])
                self._lock.notify_all()
            elif event_id in self._seen:
                self._duplicates += 1

    def wait_complete(self, timeout_s: float) -> bool:
        """Wait until everything sent was seen; False if `timeout_s` ran out."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._open, timeout_s)

    def tally(self) -> Tally:
        """Return the sums so far."""
        with self._lock:
            return Tally(
                sent=self._sent,
                results=self._results,
                failures=len(self._seen) - self._results,
                lost=len(self._open),
                duplicates=self._duplicates,
                latency_ms=self._latencies.percentiles(),
            )
