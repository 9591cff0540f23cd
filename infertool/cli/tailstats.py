"""Statistics of what `tail` prints: how many, how well, how long, topic by topic."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from infertool.feed.arrival import Arrival
from infertool.printable import clean
from infertool.telemetry.latencies import Latencies

_Key = tuple[str, str]


class _Counts:
    """What came on one topic of one source since the last line."""

    def __init__(self) -> None:
        self.events = self.succeeded = self.failed = 0
        self.processing = Latencies()

    def add(self, payload: Any) -> None:
        self.events += 1
        if not isinstance(payload, dict):
            return
        status, took_ms = payload.get("status"), payload.get("processing_ms")
        self.succeeded += status == "SUCCESS"
        self.failed += status == "FAILED"
        if isinstance(took_ms, int | float) and not isinstance(took_ms, bool) and isfinite(took_ms):
            self.processing.add([took_ms / 1000])

    def line(self, elapsed_s: float) -> str:
        took = self.processing.percentiles()
        return (
            f"{self.events / elapsed_s:.1f}/s  {self.events} events  {self.succeeded} ok  {self.failed} failed  "
            f"p50 {_ms(took.p50)}  p99 {_ms(took.p99)}"
        )


class TailStats:
    """Counts by source and topic, and every `every_s` seconds has a line for each."""

    def __init__(self, every_s: float, keys: Sequence[_Key]) -> None:
        self._every_s = every_s
        self._keys = keys
        self.restart()

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Count `arrivals`."""
        for arrival in arrivals:
            self._counts[arrival.source, arrival.topic].add(arrival.payload)

    def due(self) -> list[str]:
        """Return the lines, if it is time for them; then it counts from zero."""
        elapsed_s = time.monotonic() - self._since
        return self.finish() if elapsed_s >= self._every_s else []

    def finish(self) -> list[str]:
        """Return the lines for what has come since the last ones; then it counts from zero."""
        elapsed_s = time.monotonic() - self._since
        lines = [
            f"stats {elapsed_s:.1f} s  {clean(f'{source} {topic}'.strip())}  {counts.line(elapsed_s)}"
            for (source, topic), counts in self._counts.items()
        ]
        self.restart()
        return lines

    def restart(self) -> None:
        """Count from zero, from now on."""
        self._since = time.monotonic()
        self._counts = {key: _Counts() for key in self._keys}


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
