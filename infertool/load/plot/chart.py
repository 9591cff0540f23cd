"""A chart as SVG: colours, scales, axes, lines, bars and a legend. Colours and widths come from plot.css, by class."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from infertool.text.sanitize import clean

LIGHT: Final[Mapping[str, str]] = {
    "ground": "#f5f6f8",
    "panel": "#ffffff",
    "line": "#e6e8ec",
    "shade": "#f1f2f6",
    "text": "#1b1e26",
    "quiet": "#636a78",
    "good": "#15803d",
    "warn": "#b45309",
    "bad": "#c02626",
    "c0": "#4f46e5",
    "c1": "#d9480f",
    "c2": "#0d9488",
    "c3": "#a21caf",
}
DARK: Final[Mapping[str, str]] = {
    "ground": "#0f1116",
    "panel": "#171a21",
    "line": "#2a2f3a",
    "shade": "#1e222b",
    "text": "#e7e9ee",
    "quiet": "#969eae",
    "good": "#4ade80",
    "warn": "#fbbf24",
    "bad": "#f87171",
    "c0": "#8b87ff",
    "c1": "#fb923c",
    "c2": "#2dd4bf",
    "c3": "#e879f9",
}
STYLES: Final = Path(__file__).with_name("plot.css")
Tick = tuple[float, str]
_MANY_DECADES = 5
WIDTH, HEIGHT = 600, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 60, 42
_INNER_HEIGHT = HEIGHT - _TOP - _BOTTOM
_LETTER = 6.3  # approximate width of a letter in a legend
_SWATCH, _GAP = 20, 16
# Points of a line nearer than this cannot be label apart. Pixels.
_NEAR = 0.4
Point = tuple[float, float | None]


def variables(colours: Mapping[str, str]) -> str:
    """Return colours as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def fixed(colours: Mapping[str, str]) -> str:
    """Return plot.css with `colours` in place of CSS variables, which the PNG renderer does not support."""
    return re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], STYLES.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, linear in `place` (identity or logarithm). `ticks` are values with their labels."""

    low: float
    high: float
    ticks: tuple[Tick, ...]
    place: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """Return the place of `value` from 0 to 1; values outside the scale are on its border."""
        low, high = self.place(self.low), self.place(self.high)
        return (self.place(min(max(value, self.low), self.high)) - low) / (high - low)


def linear(low: float, high: float, label: Callable[[float], str], *, marks: int = 6) -> Scale:
    """Return a linear scale with at most about `marks` round marks."""
    high = high if high > low else low + 1
    step = _round_step((high - low) / marks)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = (round(number * step, 9) for number in range(first, last + 1))
    return Scale(low, high, tuple((place, label(place)) for place in places))


def logarithmic(low: float, high: float, label: Callable[[float], str]) -> Scale:
    """Return a logarithmic scale from a round value at or below `low` to one at or above `high`; both above zero."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = len(decades) < _MANY_DECADES
    marks = [m * 10.0**decade for decade in decades for m in ((1, 2, 5) if few else (1,))]
    below = max((mark for mark in marks if mark <= low), default=marks[0])
    above = min((mark for mark in marks if mark >= high and mark > below), default=marks[-1])
    shown = tuple((mark, label(mark)) for mark in marks if below <= mark <= above)
    return Scale(below, above, shown, math.log10)


def percentiles(samples: int) -> Scale:
    """Return HDR's scale of 1/(1-p), up to the resolution of `samples`: 90 to 99 % is as long as 99 to 99.9 %."""
    decades = max(1, math.ceil(math.log10(max(samples, 2)) - 1e-9))
    ticks = [(1.0, "0"), (2.0, "50")] + [(10.0**n, _nines(n)) for n in range(1, decades + 1)]
    return Scale(1.0, 10.0**decades, tuple(ticks), math.log10)


def milliseconds(value: float) -> str:
    """Return a time (milliseconds) as the label of a tick."""
    for factor, unit in ((1e-3, "s"), (1.0, "ms")):
        if value * factor >= 1:
            return f"{value * factor:g} {unit}"
    return f"{value * 1e3:g} µs" if value else "0"


def number(value: float) -> str:
    """Return a number as the label of a tick."""
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _round_step(step: float) -> float:
    decade = 10.0 ** math.floor(math.log10(step))
    return next(factor for factor in (1, 2, 5, 10) if factor * decade >= step * (1 - 1e-9)) * decade


def _nines(count: int) -> str:
    return f"{100 - 100 / 10**count:.{max(0, count - 2)}f}"


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points, with a gap where a value is None. `style` holds classes of plot.css."""

    style: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the x axis and the lines of its label."""

    start: float
    end: float
    label: Sequence[str]


@dataclass(frozen=True, slots=True)
class Chart:
    """The content of a chart. `legend` holds names and styles, `bars` (start, end, height) from the bottom.

    `shaded` is a shaded range with a label; the labels of `spans` show while the pointer is on them.
    """

    title: str
    x: Scale
    y: Scale
    x_label: str
    lines: Sequence[Line]
    legend: Sequence[tuple[str, str]]
    bars: Sequence[tuple[float, float, float]] = ()
    bars_name: str = ""
    shaded: Span | None = None
    spans: Sequence[Span] = ()
    width: int = WIDTH

    def svg(self, *, at: tuple[float, float] = (0, 0)) -> str:
        """Return the chart as SVG; `at` is its place in a larger drawing."""
        body = [
            *self._frame(),
            *self._shade(),
            *self._bars(),
            *map(self._line, self.lines),
            *self._hover(),
            *self._key(),
        ]
        return (
            f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" x="{at[0]}" y="{at[1]}" width="{self.width}"'
            f' height="{HEIGHT}" viewBox="0 0 {self.width} {HEIGHT}" role="img" aria-label="{safe(self.title)}">'
            f"{''.join(body)}</svg>"
        )

    def _x(self, value: float) -> float:
        return round(_LEFT + self.x(value) * (self.width - _LEFT - _RIGHT), 1)

    def _y(self, value: float) -> float:
        return round(_TOP + (1 - self.y(value)) * _INNER_HEIGHT, 1)

    def _frame(self) -> Iterable[str]:
        bottom, right = _TOP + _INNER_HEIGHT, self.width - _RIGHT
        yield f'<text class="title" x="{_LEFT}" y="23">{safe(self.title)}</text>'
        for value, label in self.y.ticks:
            y = self._y(value)
            yield f'<path class="grid" d="M{_LEFT} {y}H{right}"/>'
            yield f'<text class="tick" x="{_LEFT - 7}" y="{y + 4}" text-anchor="end">{safe(label)}</text>'
        for value, label in self.x.ticks:
            x = self._x(value)
            yield f'<path class="grid" d="M{x} {_TOP}V{bottom}"/>'
            anchor = "end" if x > right - _LETTER * len(label) / 2 else "middle"
            yield f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="{anchor}">{safe(label)}</text>'
        yield f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>'
        yield f'<text class="tick" x="{right}" y="{HEIGHT - 8}" text-anchor="end">{safe(self.x_label)}</text>'

    def _shade(self) -> Iterable[str]:
        if self.shaded:
            x, end = self._x(self.shaded.start), self._x(self.shaded.end)
            yield f'<rect class="shade" x="{x}" y="{_TOP}" width="{end - x:.1f}" height="{_INNER_HEIGHT}"/>'
            yield f'<text class="tick" x="{x + 4}" y="{_TOP + 13}">{safe(" ".join(self.shaded.label))}</text>'

    def _bars(self) -> Iterable[str]:
        bottom = _TOP + _INNER_HEIGHT
        for start, end, height in self.bars:
            x, y = self._x(start), self._y(height)
            yield f'<rect class="bar" x="{x}" y="{y}" width="{self._x(end) - x:.1f}" height="{bottom - y:.1f}"/>'

    def _line(self, line: Line) -> str:
        path = []
        for known, run in groupby(line.points, lambda point: point[1] is not None):
            if known:
                places = list(_thinned((self._x(x), self._y(y)) for x, y in run if y is not None))
                path.append("M" + "L".join(f"{x:g} {y:g}" for x, y in places) + ("h.1" if len(places) == 1 else ""))
        return f'<path class="line {line.style}" d="{"".join(path)}"/>'

    def _hover(self) -> Iterable[str]:
        for span in self.spans:
            x = self._x(span.start)
            yield (
                f'<rect class="span" x="{x}" y="{_TOP}" width="{self._x(span.end) - x:.1f}" height="{_INNER_HEIGHT}">'
                f"<title>{'&#10;'.join(map(safe, span.label))}</title></rect>"
            )

    def _key(self) -> Iterable[str]:
        entries = [(name, f'<path class="line {style}" d="M0 0H{_SWATCH}"/>') for name, style in self.legend]
        if self.bars:
            entries.append((self.bars_name, f'<rect class="bar" y="-5" width="{_SWATCH}" height="10"/>'))
        x = float(_LEFT)
        for name, swatch in entries:
            yield f'<g transform="translate({x:.0f} 43)">{swatch}<text class="legend" x="{_SWATCH + 6}" y="4">'
            yield f"{safe(name)}</text></g>"
            x += _SWATCH + 6 + len(name) * _LETTER + _GAP


def safe(text: str) -> str:
    """Return `text` escaped for XML. Control characters, which XML cannot hold, become escapes."""
    return escape(clean(text))


def _thinned(places: Iterable[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """Return the places without those too near to the previous one."""
    last: tuple[float, float] | None = None
    for place in places:
        if last is None or abs(place[0] - last[0]) > _NEAR or abs(place[1] - last[1]) > _NEAR:
            yield place
            last = place
