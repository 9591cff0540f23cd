"""Latency histograms (HDR): constant memory, percentiles, and an encoding that other tools read."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, starmap, zip_longest
from operator import mul, sub
from typing import Self

from hdrh.histogram import HdrHistogram

# Latencies up to 1 hour in microseconds, three significant digits.
_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 3_600_000_000, 3
_QUANTILES = 500, 900, 990, 999  # per mille


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of latencies in milliseconds; None without samples."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    max: float | None = None
    mean: float | None = None
    count: int = 0

    def as_dict(self) -> dict[str, float | None]:
        """Return p50, p90, p99 and max, for JSON."""
        return {"p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max}


class Latencies:
    """A histogram of times. Not thread-safe."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)

    @property
    def count(self) -> int:
        """The number of recorded times."""
        return int(self._histogram.get_total_count())

    def add(self, seconds: Sequence[float]) -> None:
        """Record times in seconds, limited to the range from zero to one hour."""
        # Events that arrive together mostly end together, so many times of a batch are equal.
        record = self._histogram.record_value
        for value, count in Counter([int(value * 1e6) for value in seconds]).items():
            record(min(max(value, 0), _HIGHEST_US), count)

    def merge(self, other: Latencies) -> None:
        """Add all times of `other`."""
        self._histogram.add(other._histogram)

    def copy(self) -> Latencies:
        """Return a histogram of the same times."""
        copied = Latencies()
        copied.merge(self)
        return copied

    def percentiles(self) -> Percentiles:
        """Return the percentiles of all recorded times."""
        return self._percentiles(self._counts())

    def percentiles_since(self, earlier: Latencies) -> Percentiles:
        """Return the percentiles of the times recorded since `earlier`, a previous copy of this histogram."""
        if self.count == earlier.count:
            return Percentiles()
        counts = list(starmap(sub, zip_longest(self._counts(), earlier._counts(), fillvalue=0)))
        while counts and not counts[-1]:
            counts.pop()
        return self._percentiles(counts)

    def _percentiles(self, counts: list[int]) -> Percentiles:
        if not counts:
            return Percentiles()
        sums = list(accumulate(counts))
        total = sums[-1]
        p50, p90, p99, p99_9 = (self._value_ms(bisect_left(sums, _rank(q, total))) for q in _QUANTILES)
        mean_us = sum(map(mul, counts, _middles())) / total
        return Percentiles(p50, p90, p99, p99_9, self._value_ms(len(counts) - 1), round(mean_us / 1000, 3), total)

    def buckets(self, edges_s: Sequence[float]) -> list[int]:
        """Return for each edge the number of times at or below it, to three significant digits."""
        sums = list(accumulate(self._counts()))
        index_of = self._histogram.get_counts_array_index
        return [sums[min(index_of(round(edge * 1e6)), len(sums) - 1)] if sums else 0 for edge in edges_s]

    def total_s(self) -> float:
        """Return the sum of all times in seconds, to three significant digits of each."""
        return float(sum(map(mul, self._counts(), _middles()))) / 1e6

    def curve(self) -> list[tuple[float, float]]:
        """Return (fraction of samples at or below, milliseconds) for every recorded value, in ascending order."""
        counts = self._counts()
        sums = list(accumulate(counts))
        return [(sums[at] / sums[-1], self._value_ms(at)) for at, count in enumerate(counts) if count]

    def encode(self) -> str:
        """Return the histogram in HDR's compressed encoding (V2, base64), which other tools read."""
        return str(self._histogram.encode(), "ascii")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the histogram from the text of `encode`. Raises `ValueError`."""
        try:
            histogram = HdrHistogram.decode(text)
        except Exception as fault:  # noqa: BLE001 - the library, zlib and base64 raise many types
            raise ValueError(f"this is no HDR histogram: {fault!r}") from None
        found = (
            histogram.lowest_trackable_value,
            histogram.highest_trackable_value,
            histogram.significant_figures,
        )
        if found != (_LOWEST_US, _HIGHEST_US, _DIGITS):
            raise ValueError("this HDR histogram is of another range or precision")
        latencies = cls()
        latencies._histogram.add(histogram)
        return latencies

    def _counts(self) -> list[int]:
        """Return the counters up to the largest recorded value."""
        if not self.count:
            return []
        counts: list[int] = self._histogram.counts[
            : self._histogram.get_counts_array_index(self._histogram.max_value) + 1
        ]
        return counts

    def _value_ms(self, index: int) -> float:
        """Return the largest time of counter `index`, in milliseconds."""
        lowest = self._histogram.get_value_from_index(index)
        highest_us: int = self._histogram.get_highest_equivalent_value(lowest)
        return round(highest_us / 1000, 3)


def _rank(quantile: int, total: int) -> int:
    """Return the rank, from 1, of the sample that is the quantile: the first with that share at or below it."""
    return -(-quantile * total // 1000)


@cache
def _middles() -> list[float]:
    """Return the middle of each counter's range, in microseconds."""
    histogram = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
    lowest = [histogram.get_value_from_index(index) for index in range(histogram.counts_len)]
    return [(low + histogram.get_highest_equivalent_value(low)) / 2 for low in lowest]
