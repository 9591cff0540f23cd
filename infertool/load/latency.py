"""The three times a load run measures, for the whole run and for the second that is running."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from enum import StrEnum

from infertool.telemetry.latencies import Latencies


class Measure(StrEnum):
    """What a time says.

    `SLIP`: from the intended send to the actual one; the generator's own lateness.
    `SEND`: from the actual send to the broker's receipt; with --confirm.
    `E2E`: from the *intended* send to the arrival at the dashboard's topic; with --e2e.
    """

    SLIP = "slip"
    SEND = "send"
    E2E = "e2e"


class Meter:
    """The histograms of a run. Thread-safe; hand it batches, a sample at a time costs a lock each.

    Whoever runs the clock calls `cut` every second. With several processes each has a meter, sends what `cut` returns
    (`Latencies.encode`), and the one that reports takes it in with `merge`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = {measure: Latencies() for measure in Measure}
        self._interval = {measure: Latencies() for measure in Measure}

    def add(self, measure: Measure, seconds: Sequence[float]) -> None:
        """Record times in seconds."""
        with self._lock:
            self._interval[measure].add(seconds)

    def merge(self, measure: Measure, latencies: Latencies) -> None:
        """Record what another process measured."""
        with self._lock:
            self._interval[measure].merge(latencies)

    def cut(self, *, counted: bool = True) -> Mapping[Measure, Latencies]:
        """End the interval and return it; only measures with samples. Unless `counted` (a warm-up) totals skip it."""
        with self._lock:
            interval, self._interval = self._interval, {measure: Latencies() for measure in Measure}
            if counted:
                for measure, latencies in interval.items():
                    self._total[measure].merge(latencies)
        return {measure: latencies for measure, latencies in interval.items() if latencies.count}

    def totals(self) -> Mapping[Measure, Latencies]:
        """Return the whole run up to the last cut; only measures with samples. Call it when nothing cuts any more."""
        return {measure: latencies for measure, latencies in self._total.items() if latencies.count}
