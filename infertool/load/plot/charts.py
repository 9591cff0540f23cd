"""The charts of one run, or of several overlaid: rate against plan, latency over time, percentile curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from infertool.load.plot.chart import (
    WIDTH,
    Chart,
    Line,
    Point,
    Scale,
    Span,
    linear,
    logarithmic,
    milliseconds,
    number,
    percentiles,
)
from infertool.load.record import Run, Second
from infertool.load.tally import Measure

GAP: Final = 14  # between charts
WIDE: Final = 2 * WIDTH + GAP
MOST_RUNS: Final = 4  # as many as there are colours
TITLES: Final[Mapping[Measure, str]] = {
    Measure.E2E: "End to end",
    Measure.REPLY: "Reply",
    Measure.HTTP: "Response",
    Measure.SEND: "Send to receipt",
    Measure.SLIP: "Schedule slip",
}
_MOST_POINTS = 400
_SHORTEST_MS = 0.001
_ROOM = 1.15
_LEGEND_LETTERS = 40
# In the order of the legend; the first is drawn last, over the others.
# A single run has a colour for each figure; each of several runs has a colour, and figures differ by their strokes.
_RATE_ALONE: Final = {"plan": "plan", "sent": "c0", "came out": "c2", "refused": "c1"}
_RATE_OVERLAID: Final = {"plan": "dash", "sent": "", "came out": "dot", "refused": "dashdot"}
_TIMES_ALONE: Final = {"p50": "c2", "p99": "c0", "max": "c1"}
_TIMES_OVERLAID: Final = {"p50": "", "p99": "dash", "max": "dot"}


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run, its name in charts, and its report with the verdicts."""

    name: str
    run: Run
    report: dict[str, Any]


def charts(shown: Sequence[NamedRun]) -> list[Chart]:
    """Return all charts, in reading order."""
    drawn = [_rate(shown)]
    for measure in TITLES:
        if any(_measured(each, measure) for each in shown):
            drawn += [_over_time(shown, measure), _curve(shown, measure)]
    return drawn


def _rate(shown: Sequence[NamedRun]) -> Chart:
    styles = _RATE_ALONE if len(shown) == 1 else _RATE_OVERLAID
    figures: Mapping[str, Callable[[Second], float]] = {
        "plan": lambda second: second.planned,
        "sent": lambda second: second.sent,
        "came out": lambda second: second.results + second.failures,
        "refused": lambda second: second.shed + second.unavailable,
    }
    measures = {measure for each in shown for measure in each.run.info.measures}
    if not {Measure.E2E, Measure.REPLY, Measure.HTTP} & measures:
        styles = {name: style for name, style in styles.items() if name != "came out"}
    if Measure.HTTP not in measures:
        styles = {name: style for name, style in styles.items() if name != "refused"}
    wide = _wide(shown)
    lines = [
        Line(_styled(style, at), _points(each.run.seconds, wide, figures[name], fmean))
        for at, each in enumerate(shown)
        for name, style in reversed(styles.items())
    ]
    highest = max((y for line in lines for _, y in line.points if y is not None), default=1.0)
    unsent = [
        (middle - wide / 2, middle + wide / 2, height)
        for each in shown
        for middle, height in _points(each.run.seconds, wide, lambda second: second.dropped + second.unsent, fmean)
        if height
    ]
    return Chart(
        "Events a second",
        _time(shown, marks=14),
        linear(0, highest * _ROOM, number),
        "seconds" if wide == 1 else f"seconds; a point for {wide}, their mean",
        lines,
        _legend(shown, styles),
        bars=unsent,
        bars_name="not sent",
        shaded=_warmup(shown),
        spans=_spans(shown, _label),
        width=WIDE,
    )


def _over_time(shown: Sequence[NamedRun], measure: Measure) -> Chart:
    styles = _TIMES_ALONE if len(shown) == 1 else _TIMES_OVERLAID
    wide = _wide(shown)
    lines = [
        Line(_styled(style, at), _points(each.run.seconds, wide, _figure(measure, name), max))
        for at, each in enumerate(shown)
        for name, style in reversed(styles.items())
    ]
    values = [max(y, _SHORTEST_MS) for line in lines for _, y in line.points if y is not None]
    return Chart(
        f"{TITLES[measure]}: latency over time",
        _time(shown),
        logarithmic(min(values, default=_SHORTEST_MS), max(values, default=1.0), milliseconds),
        "seconds" if wide == 1 else f"seconds; a point for {wide}, the highest of each",
        lines,
        _legend(shown, styles),
        shaded=_warmup(shown),
        spans=_spans(shown, lambda second: _label_times(second, measure)),
    )


def _curve(shown: Sequence[NamedRun], measure: Measure) -> Chart:
    lines = [
        Line(f"c{at}", _steps(each.run.histograms[measure].curve()))
        for at, each in enumerate(shown)
        if _measured(each, measure)
    ]
    highest = max(y for line in lines for _, y in line.points if y is not None)
    samples = max(each.run.histograms[measure].count for each in shown if _measured(each, measure))
    return Chart(
        f"{TITLES[measure]}: percentiles",
        percentiles(samples),
        linear(0, highest * _ROOM, milliseconds),
        "percent of events",
        lines,
        _legend(shown, {"events up to this latency": "c0"}),
    )


def _measured(each: NamedRun, measure: Measure) -> bool:
    return measure in each.run.info.measures and measure in each.run.histograms


def _styled(style: str, at: int) -> str:
    return style if style in ("plan", "c0", "c1", "c2") else f"c{at} {style}".rstrip()


def _legend(shown: Sequence[NamedRun], styles: Mapping[str, str]) -> list[tuple[str, str]]:
    if len(shown) == 1:
        return list(styles.items())
    runs = [(_short(each.name, len(shown)), f"c{at}") for at, each in enumerate(shown)]
    strokes = [(name, f"plain {style}") for name, style in styles.items()] if len(styles) > 1 else []
    return runs + strokes


def _short(name: str, runs: int) -> str:
    """Return the name, cut so that the legend has room for all runs."""
    room = _LEGEND_LETTERS // runs
    return name if len(name) <= room else f"…{name[1 - room :]}"


def _wide(shown: Sequence[NamedRun]) -> int:
    """Return the number of seconds for each point: more than 1 for long runs."""
    times = [second.t for each in shown for second in each.run.seconds]
    return max(1, math.ceil((max(times, default=0) - min(times, default=0) + 1) / _MOST_POINTS))


def _points(
    seconds: Sequence[Second],
    wide: int,
    figure: Callable[[Second], float | None],
    combine: Callable[[Sequence[float]], float],
) -> list[Point]:
    """Return a figure over time, `wide` seconds combined into a point."""
    points: list[Point] = []
    for start in range(0, len(seconds), wide):
        group = seconds[start : start + wide]
        known = [value for value in map(figure, group) if value is not None]
        points.append(((group[0].t + group[-1].t + 1) / 2, combine(known) if known else None))
    return points


def _figure(measure: Measure, name: str) -> Callable[[Second], float | None]:
    return lambda second: getattr(second.latency_ms.get(measure), name, None)


def _steps(curve: Sequence[tuple[float, float]]) -> list[Point]:
    """Return the curve over 1/(1-p) as steps: each value holds from the previous share up to its own."""
    points: list[Point] = []
    before = 1.0
    for share, value in curve:
        after = 1 / (1 - share) if share < 1 else math.inf
        points += [(before, value), (after, value)]
        before = after
    return points


def _time(shown: Sequence[NamedRun], *, marks: int = 7) -> Scale:
    times = [second.t for each in shown for second in each.run.seconds]
    return linear(min(times, default=0), max(times, default=0) + 1, number, marks=marks)


def _warmup(shown: Sequence[NamedRun]) -> Span | None:
    first = min((second.t for each in shown for second in each.run.seconds), default=0)
    return Span(first, 0, ["warm-up"]) if first < 0 else None


def _spans(shown: Sequence[NamedRun], label: Callable[[Second], str]) -> list[Span]:
    """Return the labels of seconds; in a long run that of the first second of each point."""
    by_start: dict[int, list[str]] = {}
    wide = _wide(shown)
    for each in shown:
        name = f"{each.name}, " if len(shown) > 1 else ""
        for second in each.run.seconds[::wide]:
            by_start.setdefault(second.t, []).append(f"{name}second {second.t}: {label(second)}")
    return [Span(start, start + wide, texts) for start, texts in by_start.items()]


def _label(second: Second) -> str:
    label = [f"{second.planned} planned, {second.sent} sent"]
    for name in ("late", "dropped", "unsent", "confirmed", "results", "failures", "shed", "unavailable", "duplicates"):
        count = getattr(second, name)
        label += [f"{count} {name}"] if count else []
    return ", ".join(label)


def _label_times(second: Second, measure: Measure) -> str:
    times = second.latency_ms.get(measure)
    if times is None or times.p50 is None:
        return "no samples"
    return f"p50 {times.p50:g} ms, p99 {times.p99:g} ms, max {times.max:g} ms, {times.count} samples"
