"""Counts and latencies by the second for the last ten minutes; latencies in logarithmic buckets."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice

# Number of seconds that are kept.
LENGTH_S = 600
# Spans of percentiles and shares, and of the rate. Seconds.
RECENT_S = 60
RATE_S = 5
# Buckets grow by 5 %, so a percentile is off by 2.5 % at most.
_LOG_STEP = math.log(1.05)
_SMALLEST_MS, _LARGEST_MS = 0.01, 1e15


@dataclass(slots=True)
class Second:
    """The counts of one second, and its latencies by bucket."""

    results: int = 0
    failures: int = 0
    others: int = 0
    processing: Counter[int] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)

    @property
    def events(self) -> int:
        """All events of the second."""
        return self.results + self.failures + self.others


@dataclass(frozen=True, slots=True)
class Spread:
    """Two percentiles in milliseconds; None without samples. Negative if clocks differ."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Recent:
    """The figures of the last minute. `success` is the share of results, 0 to 1; None without results and failures."""

    rate: float
    success: float | None
    processing: Spread
    latency: Spread


def bucket(ms: float) -> int:
    """Return the bucket of a latency in milliseconds; negative for a negative latency."""
    if abs(ms) < _SMALLEST_MS:
        return 0
    steps = 1 + int(math.log(min(abs(ms), _LARGEST_MS) / _SMALLEST_MS) / _LOG_STEP)
    return steps if ms > 0 else -steps


def middle(number: int) -> float:
    """Return the middle of a bucket in milliseconds."""
    if number == 0:
        return 0.0
    return math.copysign(_SMALLEST_MS * math.exp((abs(number) - 0.5) * _LOG_STEP), number)


class Seconds:
    """The last ten minutes by the second. If the clock is set back, the newest second counts."""

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque([Second()], maxlen=LENGTH_S)
        self._newest: int | None = None
        self._first = 0.0

    def at(self, now: float) -> Second:
        """Return the counter for wall-clock time `now`, in seconds."""
        if self._newest is None:
            self._newest = int(now)
            self._first = now
        missing = int(now) - self._newest
        for _ in range(min(missing, LENGTH_S)):
            self._seconds.append(Second())
        self._newest = max(self._newest, int(now))
        return self._seconds[-1]

    def recent(self, now: float) -> Recent:
        """Return the figures of the last minute."""
        self.at(now)
        results = failures = 0
        processing: Counter[int] = Counter()
        latency: Counter[int] = Counter()
        for second in islice(reversed(self._seconds), RECENT_S):
            results += second.results
            failures += second.failures
            processing.update(second.processing)
            latency.update(second.latency)
        decided = results + failures
        return Recent(
            rate=self._rate(now),
            success=results / decided if decided else None,
            processing=spread(processing),
            latency=spread(latency),
        )

    def rates(self, cells: int, cell_s: int) -> list[float]:
        """Return the rates of the last `cells` intervals of `cell_s` seconds, the newest last."""
        counts = [second.events for second in self._seconds]
        # The newest second is incomplete.
        complete = counts[:-1] or [0]
        stretches = [complete[max(0, end - cell_s) : end] for end in range(len(complete), 0, -cell_s)][:cells]
        found = [sum(stretch) / len(stretch) for stretch in reversed(stretches)]
        return [0.0] * (cells - len(found)) + found

    def _rate(self, now: float) -> float:
        passed = min(max(now - self._first, 1.0), RATE_S + now % 1)
        events = sum(second.events for second in islice(reversed(self._seconds), RATE_S + 1))
        return events / passed


def spread(buckets: Counter[int]) -> Spread:
    """Return the percentiles of latencies counted by bucket."""
    total = buckets.total()
    if not total:
        return Spread(None, None)
    return Spread(_percentile(buckets, total * 0.5), _percentile(buckets, total * 0.99))


def _percentile(buckets: Counter[int], rank: float) -> float:
    seen = 0
    number = 0
    for number in sorted(buckets):
        seen += buckets[number]
        if seen >= rank:
            break
    return middle(number)
