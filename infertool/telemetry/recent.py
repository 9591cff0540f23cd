"""What happened in the last seconds: a consumer that runs for days is not told by its averages."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from infertool.telemetry.latencies import Latencies, Percentiles
from infertool.telemetry.stats import Snapshot

# Span of the recent figures, and the time between two samples. Seconds.
SPAN_S = 10.0
SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Recent:
    """Settled events a second and their latencies over the last `seconds`; nothing is known before two samples."""

    seconds: float
    rate: float
    latency_ms: Percentiles


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    settled: int
    latency: Latencies


class RecentFigures:
    """Takes a snapshot now and then, and returns the figures of the last `span_s` seconds.

    It compares totals, so that counting an event costs no more than it does without it.
    """

    def __init__(self, span_s: float = SPAN_S) -> None:
        self._span_s = span_s
        self._samples: deque[_Sample] = deque()

    def add(self, snapshot: Snapshot, now: float) -> Recent:
        """Take `snapshot` at `now` (monotonic, seconds); return the figures since the sample `span_s` ago."""
        if not self._samples or now - self._samples[-1].at >= SAMPLE_S:
            self._samples.append(_Sample(now, snapshot.settled, snapshot.latency))
        # The first sample is the newest that is at least the span old.
        while len(self._samples) > 2 and now - self._samples[1].at >= self._span_s:  # noqa: PLR2004
            self._samples.popleft()
        first = self._samples[0]
        seconds = now - first.at
        if seconds <= 0:
            return Recent(0.0, 0.0, Percentiles())
        settled = max(0, snapshot.settled - first.settled)
        return Recent(seconds, settled / seconds, snapshot.latency.percentiles_since(first.latency))
