"""Scales of axes: where a value lies, from 0 to 1, and which values to mark."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Tick = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Scale:
    """From `low` to `high`, even by `place` (the identity, or a logarithm). `ticks` are values with their labels."""

    low: float
    high: float
    ticks: tuple[Tick, ...]
    place: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """Return where `value` lies; what is outside lies on the border."""
        low, high = self.place(self.low), self.place(self.high)
        return (self.place(min(max(value, self.low), self.high)) - low) / (high - low)


def linear(low: float, high: float, label: Callable[[float], str], *, marks: int = 6) -> Scale:
    """Return an even scale with about `marks` round marks, not more."""
    high = high if high > low else low + 1
    step = _round_step((high - low) / marks)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = (round(number * step, 9) for number in range(first, last + 1))
    return Scale(low, high, tuple((place, label(place)) for place in places))


def logarithmic(low: float, high: float, label: Callable[[float], str]) -> Scale:
    """Return a scale by decades from a round value at or below `low` to one at or above `high`; both above zero."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = len(decades) < _MANY_DECADES
    marks = [m * 10.0**decade for decade in decades for m in ((1, 2, 5) if few else (1,))]
    below = max((mark for mark in marks if mark <= low), default=marks[0])
    above = min((mark for mark in marks if mark >= high and mark > below), default=marks[-1])
    shown = tuple((mark, label(mark)) for mark in marks if below <= mark <= above)
    return Scale(below, above, shown, math.log10)


def percentiles(samples: int) -> Scale:
    """Return HDR's scale of 1/(1-p): as far from 90 to 99 % as from 99 to 99.9 %, up to what `samples` can tell."""
    decades = max(1, math.ceil(math.log10(max(samples, 2)) - 1e-9))
    ticks = [(1.0, "0"), (2.0, "50")] + [(10.0**n, _nines(n)) for n in range(1, decades + 1)]
    return Scale(1.0, 10.0**decades, tuple(ticks), math.log10)


def milliseconds(value: float) -> str:
    """Return a time for a mark on an axis."""
    for factor, unit in ((1e-3, "s"), (1.0, "ms")):
        if value * factor >= 1:
            return f"{value * factor:g} {unit}"
    return f"{value * 1e3:g} µs" if value else "0"


def number(value: float) -> str:
    """Return a number for a mark on an axis."""
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


_MANY_DECADES = 5


def _round_step(step: float) -> float:
    decade = 10.0 ** math.floor(math.log10(step))
    return next(factor for factor in (1, 2, 5, 10) if factor * decade >= step * (1 - 1e-9)) * decade


def _nines(count: int) -> str:
    return f"{100 - 100 / 10**count:.{max(0, count - 2)}f}"
