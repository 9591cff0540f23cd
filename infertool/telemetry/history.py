"""The recent past of the totals: rates and latencies of the last minute, error ratios of the last hours."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from infertool.telemetry.latencies import Latencies, Percentiles
from infertool.telemetry.stats import settled
from infertool.telemetry.stats_document import SPAN_S, ErrorStats, LatencyStats, Quantiles, RateStats

_MINUTE_S: Final = 60.0
# Spans of the error ratios. Seconds.
_SPANS: Final = {"5m": 5 * _MINUTE_S, "30m": 30 * _MINUTE_S, "1h": 60 * _MINUTE_S, "6h": 360 * _MINUTE_S}
# Time between two samples for the error ratios. Seconds.
_COARSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Totals:
    """What grows while a consumer runs; `enqueued` counts the messages that the queue ever got, where that is known.

    `batch_sizes` counts the calls of the model for several events, by their number.
    """

    counts: Mapping[str, int]
    event: Latencies
    inference: Latencies
    age: Latencies
    confirm: Latencies
    enqueued: int | None = None
    batch_sizes: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    totals: Totals


@dataclass(frozen=True, slots=True)
class _Errors:
    at: float
    settled: int
    failed: int


class History:
    """Samples of the totals, from which differences are computed. Not thread-safe."""

    def __init__(self) -> None:
        self._fine: deque[_Sample] = deque()
        self._coarse: deque[_Errors] = deque()

    def add(self, totals: Totals, now: float) -> None:
        """Add a sample at `now` (monotonic, seconds), about once a second."""
        self._fine.append(_Sample(now, totals))
        while len(self._fine) > 2 and now - self._fine[1].at >= SPAN_S:  # noqa: PLR2004  (the first is the base)
            self._fine.popleft()
        if not self._coarse or now - self._coarse[-1].at >= _COARSE_S:
            self._coarse.append(_Errors(now, settled(totals.counts), totals.counts["failed"]))
        while len(self._coarse) > 2 and now - self._coarse[1].at >= _SPANS["6h"]:  # noqa: PLR2004
            self._coarse.popleft()

    def rates(self) -> RateStats:
        """Return events a second over the last minute, or since the first sample."""
        first, last = self._fine[0], self._fine[-1]
        seconds = last.at - first.at
        if seconds <= 0:
            return RateStats()

        def rate(now: int, before: int) -> float:
            return round(max(0, now - before) / seconds, 3)

        then, counts = first.totals.counts, last.totals.counts
        return RateStats(
            received=rate(counts["received"], then["received"]),
            settled=rate(settled(counts), settled(then)),
            failed=rate(counts["failed"], then["failed"]),
            dead_lettered=rate(counts["dead_lettered"], then["dead_lettered"]),
            retried=rate(counts["retried"], then["retried"]),
        )

    def arrival_rate(self) -> float | None:
        """Return the messages a second that come to the queue; None where the broker does not tell."""
        known = [each for each in self._fine if each.totals.enqueued is not None]
        if len(known) < 2 or known[-1].at <= known[0].at:  # noqa: PLR2004  (a difference needs two)
            return None
        came = (known[-1].totals.enqueued or 0) - (known[0].totals.enqueued or 0)
        # A broker that was started anew counts from zero.
        return round(came / (known[-1].at - known[0].at), 3) if came >= 0 else None

    def events_a_call(self) -> float:
        """Return how many events shared their call of the model, on average of the events of the last minute."""
        then, now = self._fine[0].totals.batch_sizes, self._fine[-1].totals.batch_sizes
        calls = {size: count - then.get(size, 0) for size, count in now.items()}
        events = sum(size * count for size, count in calls.items())
        return sum(size * size * count for size, count in calls.items()) / events if events else 1.0

    def latencies(self) -> LatencyStats:
        """Return the latencies of the last minute, or since the first sample."""
        then, now = self._fine[0].totals, self._fine[-1].totals
        return LatencyStats(
            event=_quantiles(now.event.percentiles_since(then.event)),
            inference=_quantiles(now.inference.percentiles_since(then.inference)),
            age=_quantiles(now.age.percentiles_since(then.age)),
            confirm=_quantiles(now.confirm.percentiles_since(then.confirm)),
        )

    def errors(self) -> ErrorStats:
        """Return the share of failed among settled events, over spans that end now."""
        last = self._fine[-1]
        events: dict[str, int] = {}
        ratios: dict[str, float | None] = {}
        for name, span_s in _SPANS.items():
            first = next((each for each in self._coarse if last.at - each.at <= span_s), self._coarse[-1])
            events[name] = settled(last.totals.counts) - first.settled
            failed = last.totals.counts["failed"] - first.failed
            ratios[name] = min(1.0, failed / events[name]) if events[name] > 0 else None
        return ErrorStats(
            ratio_5m=ratios["5m"],
            ratio_30m=ratios["30m"],
            ratio_1h=ratios["1h"],
            ratio_6h=ratios["6h"],
            events_5m=events["5m"],
            events_30m=events["30m"],
            events_1h=events["1h"],
            events_6h=events["6h"],
        )


def _quantiles(found: Percentiles) -> Quantiles:
    return Quantiles(p50_ms=found.p50, p90_ms=found.p90, p99_ms=found.p99, max_ms=found.max, count=found.count)
