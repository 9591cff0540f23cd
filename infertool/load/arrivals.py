"""The schedule of a run: when each event is due. Pure: no clock, no threads; the same seed gives the same schedule."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from infertool.errors import UsageError
from infertool.load import shapes

# Tolerance for rounding: a sum of rates times durations may fall just short of a whole number of events.
_ROUNDING: Final = 1e-9
# Times are whole microseconds, so that an event's id can hold its time exactly.
_DIGITS: Final = 6
# Returns the times from the event of that number on, from 0.
_Begin = Callable[[int], Iterator[float]]
_Begun = tuple[str, float, _Begin]


def read_times(path: Path) -> list[float]:
    """Return the times of a trace file, in seconds after the first one. Raises UsageError.

    Empty lines and `# comments` are skipped.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as fault:
        raise UsageError(f"--trace {path} cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--trace {path} is not text", advice="write a time a line, in seconds") from None
    times: list[float] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        time = _time(text, f"{path} line {number}")
        if times and time < times[-1]:
            raise UsageError(f"--trace {path} line {number} goes back in time", advice="sort the file")
        times.append(time)
    if not times:
        raise UsageError(f"--trace {path} holds no times", advice="write a time a line, in seconds")
    return [time - times[0] for time in times]


def _time(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = _iso(text)
    if not math.isfinite(seconds):
        raise UsageError(
            f"--trace {where}: {text[:40]!r} is no time",
            advice="write seconds, or an ISO time like 2026-11-25T10:00:00Z",
        )
    return seconds


def _iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parse_speed(text: str) -> float:
    """Return `2x` or `2` as a factor. Raises UsageError."""
    try:
        speed = float(text.strip().removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < math.inf:
        raise UsageError(f"--speed {text!r} is no speed", advice="write for example 2x or 0.5x")
    return speed


class NothingPlannedError(UsageError):
    """The plan has no length."""

    def __init__(self) -> None:
        super().__init__("--duration 0 sends nothing", advice="write for example --duration 30s")


class Process(StrEnum):
    """The arrival process: evenly spaced, or Poisson (each event independent of the others)."""

    CONSTANT = "constant"
    POISSON = "poisson"


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan that the options describe. An open model has exactly one of `qps`, `stages`, `ramp` and `trace`.

    Events of the first `warmup_s` seconds are sent and not counted; `duration_s` and `count` limit the counted part.
    """

    qps: float | None = None
    process: Process = Process.CONSTANT
    stages: tuple[str, ...] = ()
    ramp: str | None = None
    burst: str | None = None
    trace: Path | None = None
    speed: float = 1.0
    duration_s: float | None = None
    count: int | None = None
    warmup_s: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The times at which events are due, in seconds after the start of the warm-up.

    There are at most `limit` of them, all up to `end_s`, which may be infinite. `text` describes the plan.
    """

    text: str
    warmup_s: float
    end_s: float
    limit: int | None
    _begin: _Begin = field(repr=False)

    def times(self) -> Iterator[float]:
        """Return the times, in order; each call returns the same ones from the start."""
        for time in itertools.islice(self._begin(0), self.limit):
            if time > self.end_s or (time == self.end_s and self.limit is None):
                return
            yield time


def arrivals(shape: shapes.Shape, units: Iterator[float]) -> Iterator[float]:
    """Return the times at which the area under the shape reaches each of `units`. Seconds, to the microsecond."""
    began_s, below = 0.0, 0.0
    due = next(units)
    for segment in shape:
        above = below + segment.events
        while due < above - _ROUNDING:
            yield round(began_s + segment.at(due - below), _DIGITS)
            due = next(units)
        began_s += segment.seconds
        below = above


# A run asks for it several times, and random arrivals of millions of events take seconds.
@lru_cache(maxsize=4)
def schedule(planned: Planned) -> Schedule:
    """Return the schedule. Raises UsageError for contradictory options and for a trace that cannot be read."""
    _check(planned)
    text, length_s, begin = _of_trace(planned, planned.trace) if planned.trace else _of_shape(planned)
    end_s = length_s if planned.duration_s is None else planned.warmup_s + planned.duration_s
    if planned.warmup_s >= end_s:
        raise UsageError(f"--warmup is as long as the whole run of {end_s:g} s", advice="make the run longer")
    limit = None
    if planned.count is not None:
        warm = sum(1 for _ in itertools.takewhile(lambda time: time < planned.warmup_s, begin(0)))
        limit = warm + planned.count
        end_s = min(end_s, next(begin(limit), end_s))
    return Schedule(described(text, planned), planned.warmup_s, end_s, limit, begin)


def _check(planned: Planned) -> None:
    shaping = {
        "--qps": planned.qps is not None,
        "--stage": bool(planned.stages),
        "--ramp": planned.ramp is not None,
        "--trace": planned.trace is not None,
    }
    given = [name for name, present in shaping.items() if present]
    if len(given) != 1:
        what = f"{given[0]} and {given[1]} contradict each other" if given else "there is no rate"
        raise UsageError(what, advice=f"give one of {', '.join(shaping)}")
    if planned.duration_s == 0:
        raise NothingPlannedError
    if planned.burst and planned.qps is None:
        raise UsageError("--burst needs a rate in between", advice="give it with --qps, for example --qps 100")
    if planned.trace is None and planned.speed != 1.0:
        raise UsageError("--speed goes only with --trace", advice="change the rate instead")
    if planned.trace is not None and planned.process is Process.POISSON:
        raise UsageError("--arrivals goes not with --trace, which gives every time", advice="leave it out")


def _of_trace(planned: Planned, path: Path) -> _Begun:
    """Return the plan's text, its length in seconds, and a function that returns its times."""
    times = [round(time / planned.speed, _DIGITS) for time in read_times(path)]
    speed = "" if planned.speed == 1.0 else f" at {planned.speed:g}x"
    return f"trace {path.name}{speed}", times[-1] + _ROUNDING, lambda first: itertools.islice(times, first, None)


def _of_shape(planned: Planned) -> _Begun:
    if planned.burst is not None and planned.qps is not None:
        base, burst = planned.qps, planned.burst
        shapes.bursts(base, burst)
        return (
            f"{base:g}/s with bursts {burst}, {planned.process}",
            math.inf,
            lambda first: arrivals(shapes.bursts(base, burst), _units(planned, first)),
        )
    text, shape = _segments(planned)
    length_s = sum(segment.seconds for segment in shape)
    if planned.duration_s is not None and length_s < planned.warmup_s + planned.duration_s:
        shape = [*shape, *shapes.steady(_last_rate(shape))]
    return f"{text}, {planned.process}", length_s, lambda first: arrivals(shape, _units(planned, first))


def _segments(planned: Planned) -> tuple[str, list[shapes.Segment]]:
    if planned.stages:
        return " then ".join(planned.stages), shapes.stages(planned.stages)
    if planned.ramp is not None:
        return f"ramp {planned.ramp}", shapes.ramp(planned.ramp)
    return f"{planned.qps:g}/s", shapes.steady(planned.qps or 0.0)


def _last_rate(shape: Sequence[shapes.Segment]) -> float:
    rate = shape[-1].last
    if not rate:
        raise UsageError("--duration is longer than the plan, which ends with rate 0", advice="leave --duration out")
    return rate


def _units(planned: Planned, first: int) -> Iterator[float]:
    """Return the areas under the rate at which events from `first` on are due: whole numbers, or exponential steps."""
    if planned.process is Process.CONSTANT:
        return map(float, itertools.count(first))
    rng = random.Random(f"arrivals {planned.seed}")  # noqa: S311  # load, not secrets
    steps = (rng.expovariate(1.0) for _ in itertools.count())
    return itertools.islice(itertools.accumulate(steps), first, None)


def described(text: str, planned: Planned) -> str:
    """Return the plan `text` with its limits added."""
    if planned.duration_s is not None:
        text += f", for {planned.duration_s:g} s"
    if planned.count is not None:
        text += f", {planned.count} events"
    return text + (f", after {planned.warmup_s:g} s of warm-up" if planned.warmup_s else "")
