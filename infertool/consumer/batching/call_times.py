"""Time of a call as a function of its size, `fixed_s + each_s * size`, fitted to the latest calls."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

# Calls of similar size (from one power of two to the next) are summed up by the median of the latest.
_LATEST = 9
# With this number of calls in a row that took longer, or less, by `_STEP` than those of their size before, the model
# has become another one.
_IN_A_ROW = 3
_STEP = 1.5
# Calls of a size that has not occurred in this number of calls are forgotten.
_FORGET_AFTER = 200
# A point counts this part of one of half or twice its size that is nearer to the latest call: the line fits best where
# it is used.
_NEARER = 0.7
_ERROR_WEIGHT = 0.1
_LEAST_S = 1e-7


@dataclass(frozen=True, slots=True)
class Line:
    """A call of `size` events takes `fixed_s + each_s * size`, in seconds."""

    fixed_s: float
    each_s: float

    def seconds(self, size: int) -> float:
        """Return the predicted time of a call."""
        return self.fixed_s + self.each_s * size

    def most_within(self, seconds: float) -> int:
        """Return the largest size whose call takes at most `seconds`; 0 if there is none."""
        return max(0, int(min((seconds - self.fixed_s) / self.each_s, 1e9)))

    def times(self, factor: float) -> Line:
        """Return the line of a model that is slower by `factor`."""
        return Line(self.fixed_s * factor, self.each_s * factor)


@dataclass(slots=True)
class _Point:
    """The latest calls of similar size; `at` is the number of the last one."""

    at: int = 0
    sizes: deque[int] = field(default_factory=lambda: deque(maxlen=_LATEST))
    times_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))
    before: float = 0.0
    size: float = 0.0
    seconds: float = 0.0

    def add(self, size: int, seconds: float, number: int) -> None:
        self.at = number
        self.sizes.append(size)
        self.times_s.append(seconds)
        self.size, self.seconds = median(self.sizes), median(self.times_s)

    def keep_latest(self, count: int) -> None:
        self.sizes = deque(list(self.sizes)[-count:], maxlen=_LATEST)
        self.times_s = deque(list(self.times_s)[-count:], maxlen=_LATEST)
        self.size, self.seconds = median(self.sizes), median(self.times_s)


class CallTimes:
    """Fits a `line` to calls. An outlier does not move it; a model that has become slower or faster does, at once.

    Before there are calls of several sizes the line has the shape of `like`, if that is given.
    """

    def __init__(self, like: Line | None = None) -> None:
        self.line = like or Line(0.0, _LEAST_S)
        self._has_shape = like is not None
        self.error = 0.0
        """Mean deviation of calls from their prediction: 0.1 is about ten percent."""
        self._points: dict[int, _Point] = {}
        self._calls = 0
        self._sign = self._row = 0

    @property
    def largest(self) -> int:
        """The largest size that is remembered; 0 without one."""
        return max((max(point.sizes) for point in self._points.values()), default=0)

    def add(self, size: int, seconds: float) -> None:
        """Add a call."""
        seconds = max(seconds, _LEAST_S)
        self._calls += 1
        place = size.bit_length()
        if self._points:
            deviation = math.log(seconds / self.line.seconds(size))
            self.error += _ERROR_WEIGHT * (min(1.0, abs(deviation)) - self.error)
        point = self._points.get(place)
        has_changed = bool(point and self._is_step(seconds / point.seconds))
        point = self._points.setdefault(place, _Point())
        point.add(size, seconds, self._calls)
        if has_changed:
            point.keep_latest(_IN_A_ROW)
            self._points = {place: point}
        self._points = {at: each for at, each in self._points.items() if self._calls - each.at < _FORGET_AFTER}
        self.line = self._fitted(place)

    def _is_step(self, ratio: float) -> bool:
        """Return True if this is the last of several calls in a row that differ from those before."""
        sign = 1 if ratio > _STEP else -1 if ratio < 1 / _STEP else 0
        self._row = self._row + 1 if sign and sign == self._sign else abs(sign)
        self._sign = sign
        if self._row < _IN_A_ROW:
            return False
        self._row = 0
        return True

    def _fitted(self, place: int) -> Line:
        if len(self._points) == 1:
            return self._through(next(iter(self._points.values())))
        weights = {at: _NEARER ** abs(at - place) / point.seconds**2 for at, point in self._points.items()}
        total = sum(weights.values())
        x = sum(weights[at] * point.size for at, point in self._points.items()) / total
        y = sum(weights[at] * point.seconds for at, point in self._points.items()) / total
        spread = sum(weights[at] * (point.size - x) ** 2 for at, point in self._points.items())
        joint = sum(weights[at] * (point.size - x) * (point.seconds - y) for at, point in self._points.items())
        each_s = joint / spread
        if each_s <= 0:
            return Line(y, _LEAST_S)
        if y < each_s * x:
            return Line(0.0, max(y / x, _LEAST_S))
        return Line(y - each_s * x, max(each_s, _LEAST_S))

    def _through(self, point: _Point) -> Line:
        """Return the line through the only point there is: both parts change by the same factor."""
        if not self._has_shape:
            self._has_shape = True
            return Line(point.seconds / 2, max(point.seconds / 2 / point.size, _LEAST_S))
        return self.line.times(point.seconds / (self.line.fixed_s + self.line.each_s * point.size))
