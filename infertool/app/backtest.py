"""Alert rules tried on a recorded run: which would have fired, and when.

A recording tells a part of the stats document. Rules that read anything else cannot be tried, and are named.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from infertool.alerts import fields
from infertool.alerts.engine import Engine
from infertool.alerts.fields import Scalar
from infertool.alerts.rule import Rule
from infertool.alerts.state import State
from infertool.channels.recording import RecordReader
from infertool.errors import NothingMatchedError
from infertool.load import record
from infertool.load.tally import Measure
from infertool.telemetry.history import History, Totals
from infertool.telemetry.latencies import Latencies
from infertool.telemetry.stats import COUNTS
from infertool.telemetry.stats_document import SPAN_S
from infertool.watch import entry
from infertool.watch.entry import Kind

_LOAD_RUN: Final = b'{"infertool_loadgen"'
# A recording with longer pauses is evaluated less often than once a second.
_MOST_STEPS: Final = 50_000
_QUANTILES: Final = (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("max_ms", 1.0))
_NONE: Final = Latencies()


@dataclass(slots=True)
class Moment:
    """What a recording tells of one second. Times are in milliseconds, by group of `latency`."""

    received: int = 0
    settled: int = 0
    failed: int = 0
    times: dict[str, list[float]] = field(default_factory=dict)
    worst: dict[str, dict[str, float]] = field(default_factory=dict)
    """Quantiles of the second, where single times are unknown."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The seconds of a recording, by Unix time. `waiting` is the depth at its start; None if the depth is unknown."""

    moments: Mapping[int, Moment]
    prefixes: tuple[str, ...]
    waiting: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A rule entered `state` at Unix time `at`, `after_s` seconds after the start."""

    at: float
    after_s: float
    rule: str
    state: State
    value: float | None
    summary: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rules would have done, and for each rule that could not be tried the fields that are not recorded."""

    seconds: int
    tried: int
    changes: Sequence[Change]
    untried: Mapping[str, Sequence[str]]


def run(path: Path, rules: Sequence[Rule]) -> Outcome:
    """Try `rules` on the recording. Raises `RecordError`, `RunFileError` or `NothingMatchedError`."""
    recording = _load_run(path) if _is_load_run(path) else _events(path)
    if not recording.moments:
        raise NothingMatchedError(
            f"{path} holds no results and no failures", advice="was it written by --record or --save?"
        )
    told = {name for name in fields.known() if name.startswith(recording.prefixes)}
    missing = {rule.name: sorted(_read(rule) - told) for rule in rules if rule.enabled}
    first, last = min(recording.moments), max(recording.moments)
    engine = Engine([rule for rule in rules if not missing.get(rule.name)], float(first))
    changes: list[Change] = []
    before = dict.fromkeys(engine.states, State.INACTIVE)
    for at, values in _documents(recording, first, last):
        engine.evaluate({path: value for path, value in values.items() if path in told}, float(at), float(at))
        for shown in engine.shown(float(at), float(at)):
            state = State(shown.state)
            if state is not before[shown.rule] and State.NODATA not in {state, before[shown.rule]}:
                changes.append(Change(at, at - first, shown.rule, state, shown.value, shown.summary))
            before[shown.rule] = state
    return Outcome(
        last - first + 1, len(engine.states), changes, {name: paths for name, paths in missing.items() if paths}
    )


def _read(rule: Rule) -> set[str]:
    return set(rule.when.paths | (rule.clear.paths if rule.clear else frozenset()))


def _documents(recording: Recording, first: int, last: int) -> Iterator[tuple[int, dict[str, Scalar | None]]]:
    """Yield the fields of each second."""
    history, counts = History(), dict.fromkeys(COUNTS, 0)
    minute: deque[tuple[int, Moment]] = deque()
    # Not each second of the recording: one wrong clock makes it decades long.
    moments = deque(sorted(recording.moments.items()))
    step = max(1, (last - first) // _MOST_STEPS)
    waiting = recording.waiting
    history.add(Totals(dict(counts), _NONE, _NONE, _NONE, _NONE), float(first - 1))
    for at in range(first, last + 1, step):
        while moments and moments[0][0] < at + step:
            second, moment = moments.popleft()
            minute.append((second, moment))
            counts["received"] += moment.received
            counts["succeeded"] += moment.settled - moment.failed
            counts["dead_lettered"] += moment.failed
            counts["failed"] += moment.failed
            if waiting is not None:
                waiting = max(0, waiting + moment.received - moment.settled)
        while minute and minute[0][0] <= at - SPAN_S:
            minute.popleft()
        history.add(Totals(dict(counts), _NONE, _NONE, _NONE, _NONE), float(at))
        rates, errors = history.rates(), history.errors()
        values: dict[str, Scalar | None] = {
            f"{group}.{name}": getattr(figures, name)
            for group, figures in (("rate", rates), ("errors", errors))
            for name in figures.__dataclass_fields__
        }
        values["dlq.rate"] = rates.dead_lettered
        values["queue.depth"] = waiting
        values["queue.drain_s"] = waiting / rates.settled if waiting is not None and rates.settled else None
        values.update(_latencies([moment for _, moment in minute]))
        yield at, values


def _latencies(minute: Sequence[Moment]) -> Iterator[tuple[str, Scalar | None]]:
    for group in {group for moment in minute for group in (*moment.times, *moment.worst)}:
        times = sorted(time for moment in minute for time in moment.times.get(group, ()))
        worst = [moment.worst[group] for moment in minute if group in moment.worst]
        yield f"latency.{group}.count", len(times) or sum(int(each["count"]) for each in worst)
        for name, quantile in _QUANTILES:
            if times:
                yield f"latency.{group}.{name}", times[max(0, math.ceil(quantile * len(times)) - 1)]
            elif worst:
                yield f"latency.{group}.{name}", max(each[name] for each in worst)


def _events(path: Path) -> Recording:
    """Return the results and failures of a recording of `watch` or `tail`."""
    reader = RecordReader(str(path))
    moments: dict[int, Moment] = {}
    for batch in reader.batches():
        for event in batch:
            documents = [event.payload]
            if event.event == "new_results" and isinstance(event.payload, dict):
                documents = _members(event.payload)
            for document in documents:
                _count(moments, event.event.replace("new_results", "new_result"), document, event.at)
    return Recording(moments, ("rate.", "errors.", "dlq.rate", "latency.event.", "latency.inference.", "latency.age."))


def _members(payload: Mapping[str, object]) -> list[object]:
    results = payload.get("results")
    return results if isinstance(results, list) else []


def _count(moments: dict[int, Moment], name: str, document: object, at: float) -> None:
    given = document if isinstance(document, dict) else {}
    kind = entry.kind_of(name, given)
    if kind not in {Kind.RESULT, Kind.FAILURE}:
        return
    moment = moments.setdefault(int(at), Moment())
    moment.received += 1
    moment.settled += 1
    moment.failed += kind is Kind.FAILURE
    original = given.get("original_payload")
    began = {
        "event": entry.seconds(given.get("received_at")),
        "age": entry.seconds(original.get("sent_at")) if isinstance(original, dict) else None,
    }
    for group, since in began.items():
        if since is not None:
            moment.times.setdefault(group, []).append(max(0.0, at - since) * 1000)
    if (processing_ms := entry.number_in(given, "processing_ms")) is not None:
        moment.times.setdefault("inference", []).append(processing_ms)


def _is_load_run(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_LOAD_RUN)) == _LOAD_RUN
    except OSError:
        return False  # the reader of recordings says why


def _load_run(path: Path) -> Recording:
    """Return the seconds of a load run. What was sent and is not back yet waits."""
    found = record.read(path)
    seen = {Measure.E2E, Measure.REPLY} & set(found.info.measures)
    start = int(found.info.started_at)
    first = min((second.t for second in found.seconds), default=0)
    moments = {start + second.t - first: _moment(second, seen) for second in found.seconds}
    if not seen:
        return Recording(moments, ("rate.received",))
    prefixes = ("rate.received", "rate.settled", "rate.failed", "errors.", "dlq.rate", "latency.age.", "queue.d")
    return Recording(moments, prefixes, found.counts.queue_before or 0)


def _moment(second: record.Second, seen: Iterable[Measure]) -> Moment:
    moment = Moment(second.sent, second.results + second.failures, second.failures)
    for measure in seen:
        found = second.latency_ms.get(measure)
        if found is not None and found.count:
            figures = {"p50_ms": found.p50, "p90_ms": found.p90, "p99_ms": found.p99, "max_ms": found.max}
            moment.worst["age"] = {"count": found.count, **{name: value or 0.0 for name, value in figures.items()}}
    return moment
