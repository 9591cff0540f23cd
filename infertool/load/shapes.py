"""Shapes of load over time: a sequence of rates, constant or changing linearly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from infertool.errors import UsageError
from infertool.text.input import parse_duration

_FASTEST: Final = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A rate (events a second) that changes linearly from `first` to `last` in `seconds`, which may be infinite."""

    seconds: float
    first: float
    last: float

    @property
    def events(self) -> float:
        """The number of events due in it: the area under the rate."""
        return math.inf if math.isinf(self.seconds) else self.seconds * (self.first + self.last) / 2

    def at(self, events: float) -> float:
        """Return after how many seconds `events` were due."""
        if not events:
            return 0.0
        if self.first == self.last:
            return events / self.first
        # The area after t seconds is first * t + slope * t * t / 2. This form of its inverse is stable for a slope
        # near zero and for a first of zero.
        slope = (self.last - self.first) / self.seconds
        return 2 * events / (self.first + math.sqrt(max(0.0, self.first**2 + 2 * slope * events)))


Shape = Iterable[Segment]


def steady(rate: float) -> list[Segment]:
    """Return a constant rate without end."""
    return [Segment(math.inf, rate, rate)]


def stages(texts: Sequence[str]) -> list[Segment]:
    """Return the segments of `RATE:DURATION` texts. Raises UsageError."""
    segments = [_stage(text) for text in texts]
    if not any(segment.first for segment in segments):
        raise UsageError("every --stage has rate 0", advice="write for example --stage 100:30s")
    return segments


def _stage(text: str) -> Segment:
    advice = "write a rate and a duration, for example --stage 100:30s"
    parts = text.split(":")
    if len(parts) != 2:  # noqa: PLR2004  # rate and duration
        raise UsageError(f"--stage {text!r} is no stage", advice=advice)
    rate = parse_rate("--stage", parts[0], zero=True)
    return Segment(_seconds("--stage", text, parts[1]), rate, rate)


def ramp(text: str) -> list[Segment]:
    """Return the ramp of a `FROM:TO:DURATION` text. Raises UsageError."""
    parts = text.split(":")
    if len(parts) != 3:  # noqa: PLR2004  # from, to, duration
        raise UsageError(f"--ramp {text!r} is no ramp", advice="write for example --ramp 0:1000:60s")
    first, last = (parse_rate("--ramp", part, zero=True) for part in parts[:2])
    if not first and not last:
        raise UsageError(f"--ramp {text!r} has rate 0 all the time", advice="write for example --ramp 0:1000:60s")
    return [Segment(_seconds("--ramp", text, parts[2]), first, last)]


def bursts(base: float, text: str) -> Iterator[Segment]:
    """Return `base` with the bursts of a `RATE:LENGTH/PERIOD` text, without end. Raises UsageError."""
    advice = "write for example --burst 2000:5s/60s: 2000 a second for the last 5 s of each minute"
    rate_text, colon, times = text.partition(":")
    length_text, slash, period_text = times.partition("/")
    if not colon or not slash:
        raise UsageError(f"--burst {text!r} is no burst", advice=advice)
    rate = parse_rate("--burst", rate_text)
    length, period = _seconds("--burst", text, length_text), _seconds("--burst", text, period_text)
    if length >= period:
        raise UsageError(f"--burst {text!r} lasts as long as its period", advice=advice)
    return itertools.cycle([Segment(period - length, base, base), Segment(length, rate, rate)])


def parse_rate(option: str, text: str, *, zero: bool = False) -> float:
    """Return `text` as events a second. Raises UsageError naming `option`."""
    try:
        return check_rate(option, float(text.strip().removesuffix("/s")), zero=zero)
    except ValueError:
        raise _no_rate(option, text) from None


def check_rate(option: str, rate: float, *, zero: bool = False) -> float:
    """Return `rate`. Raises UsageError naming `option` if it is out of range."""
    if not 0 <= rate <= _FASTEST or (rate == 0 and not zero):
        raise _no_rate(option, f"{rate:g}")
    return rate


def _no_rate(option: str, text: str) -> UsageError:
    advice = f"write events a second, more than 0 and at most {_FASTEST:.0f}"
    return UsageError(f"{option} {text} is no rate", advice=advice)


def _seconds(option: str, whole: str, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except UsageError as error:
        raise UsageError(f"{option} {whole!r}: {error.what}", advice=error.advice) from None
    if not seconds:
        raise UsageError(f"{option} {whole!r} lasts no time", advice="write for example 30s")
    return seconds
