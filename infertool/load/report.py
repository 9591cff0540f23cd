"""The report of a run: a document (`-o json`, `--assert`; see report.schema.json), comparisons, and rows of text.

Texts are not yet cleaned for a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from infertool.load.generator import AT_STOP
from infertool.load.options import LoadOptions
from infertool.load.record import Counts, Run, Second
from infertool.load.tally import Measure
from infertool.load.work import WorkEnd
from infertool.telemetry.latencies import Latencies, Percentiles

# A note is made from these shares on: of the planned events, of the time, of a core.
_SOME_LATE: Final = 0.01
_MANY_LATE: Final = 0.1
_LONG_BLOCKED: Final = 0.02
_BUSY: Final = 0.9
_LONG_OVERTIME_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts of a run that notes are made from. `losses` counts lost connections: of "broker" and "phoenix".

    `topics_lost` are topics that were lost while the connection to Phoenix was up, each with its first reason.
    Unless `dead_exact`, the counted dead letters may include those of other producers.
    """

    options: LoadOptions
    counts: Counts
    elapsed_s: float
    planned_s: float
    cpu_s: float
    slip_ms: Percentiles
    end: WorkEnd
    losses: Mapping[str, int]
    dead_exact: bool
    topics_lost: Mapping[str, str] = field(default_factory=dict)


def notes(facts: RunFacts) -> tuple[str, ...]:
    """Return the notes that a reader of the report needs."""
    found = (*facts.end.deaths, *_refused(facts), *_limits(facts), *_dropped(facts), *_lost(facts), *_uncounted(facts))
    return tuple(note for note in found if note)


def _refused(facts: RunFacts) -> Sequence[str]:
    if facts.options.http:
        return [
            *(f"{count} requests could not be sent: {reason}" for reason, count in facts.end.refusals.items()),
            *(f"{count} requests were lost: {reason}" for reason, count in facts.end.losses.items()),
        ]
    return [f"the broker refused {count} events: {reason}" for reason, count in facts.end.refusals.items()]


def _limits(facts: RunFacts) -> Sequence[str]:
    counts = facts.counts
    behind = counts.late + counts.dropped
    if facts.options.closed or not counts.planned or behind < counts.planned * _SOME_LATE:
        return []
    what = _behind(behind, counts.planned)
    if sum(facts.end.refusals.values()) >= behind:
        return [f"{what}; as the broker refused at least as many, that says nothing of the generator"]
    if facts.end.blocked_s > facts.elapsed_s * _LONG_BLOCKED:
        return [f"the {'gateway' if facts.options.http else 'broker'} was the limit: {what}; {_blocked(facts)}"]
    # What a stop leaves unsent is not the generator's fault.
    behind -= facts.end.drops.get(AT_STOP, 0)
    if behind < counts.planned * _SOME_LATE:
        return []
    what = _behind(behind, counts.planned)
    busy = facts.cpu_s / facts.elapsed_s / facts.options.processes if facts.elapsed_s else 0.0
    what += f" (slip p99 {facts.slip_ms.p99 or 0:.1f} ms, {busy * 100:.0f} % of a core for each process)"
    if behind < counts.planned * _MANY_LATE:
        return [f"the generator did not always get the processor in time: {what}"]
    advice = "add --processes" if busy > _BUSY else "something else kept it from the processor"
    return [f"the generator was the limit: {what}; {advice}"]


def _behind(count: int, planned: int) -> str:
    return f"{count} of {planned} events were more than 10 ms late, or dropped"


def _dropped(facts: RunFacts) -> Sequence[str]:
    found = [f"{count} events were dropped: they {why}" for why, count in facts.end.drops.items()]
    over_s = facts.elapsed_s - facts.planned_s
    if over_s >= _LONG_OVERTIME_S:
        found.append(f"the sending ended {over_s:.1f} s after the plan: what waited at its end was sent late")
    return found


def _blocked(facts: RunFacts) -> str:
    if facts.options.http:
        return f"for {facts.end.blocked_s:.1f} s all {facts.options.in_flight} connections of --in-flight were busy"
    if facts.options.confirm:
        return (
            f"for {facts.end.blocked_s:.1f} s all {facts.options.in_flight} events of --in-flight waited for a receipt"
        )
    return f"for {facts.end.blocked_s:.1f} s it took nothing (it is slow, or its flow control holds producers back)"


def _lost(facts: RunFacts) -> Sequence[str]:
    broker, phoenix = facts.losses.get("broker", 0), facts.losses.get("phoenix", 0)
    return [
        f"the connection to the broker was lost {_times(broker)}: what was under way counts as sent, "
        "and the broker may not have it" if broker else "",
        f"the connection to Phoenix was lost {_times(phoenix)}: what came out meanwhile was not seen, "
        "and counts as lost" if phoenix else "",
        *(
            f"{topic} was lost for a while ({reason}): what came out meanwhile was not seen, and counts as lost"
            for topic, reason in facts.topics_lost.items()
        ),
    ]  # fmt: skip


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _uncounted(facts: RunFacts) -> Sequence[str]:
    counts = facts.counts
    if not facts.options.e2e:
        return []
    unknown = "the broker does not tell how deep its queues are, so "
    return [
        f"{unknown}dead letters were not counted" if counts.dead_lettered is None else "",
        f"{unknown}lost are also those that still wait" if counts.queued is None and counts.lost else "",
        f"{counts.queued} events were not seen, and may still be in the queue: it held {counts.queue_before or 0} "
        f"messages at the start and {counts.queue_after} at the end" if counts.queued else "",
        "the broker did not show every dead letter, so those of others may be among the counted ones"
        if not facts.dead_exact else "",
    ]  # fmt: skip


SCHEMA: Final = Path(__file__).with_name("report.schema.json")
COUNTS: Final = tuple(each.name for each in fields(Counts))
SUMS: Final = ("planned_rate", "sent_rate", "result_rate", "failed_share", "elapsed_s", "cpu_s", "cpu_share")
SHARES: Final = ("shed_share", "retry_served_share")
FIGURES: Final = ("count", "rate", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")
# Measures that need an option.
OPTION_OF: Final[Mapping[str, str]] = {
    Measure.SEND: "--confirm",
    Measure.E2E: "--e2e",
    Measure.REPLY: "--rpc",
    Measure.HTTP: "--http",
}
_TIMES = ("mean", "p50", "p90", "p99", "p99_9", "max")
Rows = list[tuple[str, ...]]
UNKNOWN: Final = "-"
CUT_SHORT: Final = (
    "the file ends early: the run was killed or is still going; what is here is all up to its last second"
)
CLOSED: Final = (
    "closed model: an event is sent when an earlier one has come back, so a slow consumer slows the load, "
    "and latencies look better than they are for those who do not wait"
)
_WORDS: Final = {"queued": "still queued", "out_of_order": "out of order", "timed_out": "timed out"}
_HEAD = ("count", "rate/s", "mean", "p50", "p90", "p99", "p99.9", "max")
_WHOLE = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One figure in every run. `differences` and `ratios` are to the first run; None if they are undefined."""

    name: str
    values: tuple[float | None, ...]

    @property
    def differences(self) -> tuple[float | None, ...]:
        """The difference of each further run to the first."""
        first, *others = self.values
        return tuple(
            None if first is None or other is None else round(other - first, 6) for other in others
        )  # fmt: skip

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """The ratio of each further run to the first."""
        first, *others = self.values
        return tuple(None if not first or other is None else round(other / first, 4) for other in others)


def compare(reports: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a row for each figure that at least one of the runs has."""
    columns = [figures(report) for report in reports]
    rows = [Row(name, tuple(column[name] for column in columns)) for name in columns[0]]
    return [row for row in rows if any(value is not None for value in row.values)]


def comparison_document(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the runs and their comparison as a document for JSON."""
    rows = {
        row.name: {"values": row.values, "differences": row.differences, "ratios": row.ratios}
        for row in compare(reports)
    }
    return {"runs": [{"file": name, **report} for name, report in zip(names, reports, strict=True)], "comparison": rows}


def document(run: Run) -> dict[str, Any]:
    """Return the report of a run. Unknown figures and measures that were not taken are None."""
    counts = run.counts
    results, failures = counts.results, counts.failures
    came_out = None if results is None or failures is None else results + failures
    return {
        "complete": run.complete,
        "run": _info(run),
        **asdict(counts),
        "planned_rate": _ratio(counts.planned, run.elapsed_s if run.planned_s is None else run.planned_s, 3),
        "sent_rate": _ratio(counts.sent, run.elapsed_s, 3),
        "result_rate": _ratio(came_out, _came_out_s(run), 3),
        "failed_share": _ratio(failures, came_out, 6),
        "shed_share": _ratio(counts.shed, counts.sent, 6),
        "retry_served_share": _ratio(counts.retry_served, counts.retried, 6),
        "elapsed_s": round(run.elapsed_s, 3),
        "cpu_s": None if run.cpu_s is None else round(run.cpu_s, 3),
        "cpu_share": _ratio(run.cpu_s, run.elapsed_s, 4),
        **{measure.value: _measured(run, measure) for measure in Measure},
        "seconds": [_second(second, run.info.measures) for second in run.seconds],
        "statuses": dict(sorted(run.statuses.items())),
        "notes": list(run.notes),
        "asserts": [],
    }


def figures(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures of the whole run by their names in assertions: `lost`, `e2e.p99_ms`, ..."""
    found = {name: report[name] for name in (*COUNTS, *SUMS, *SHARES)}
    for measure in Measure:
        values = report[measure] or {}
        found |= {f"{measure}.{name}": values.get(name) for name in FIGURES}
    return found


def _info(run: Run) -> dict[str, Any]:
    info = asdict(run.info)
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.info.started_at))
    return {**info, "started_at": started, "measures": list(run.info.measures)}


def _measured(run: Run, measure: Measure) -> dict[str, Any] | None:
    if measure not in run.info.measures:
        return None
    latencies = run.histograms.get(measure) or Latencies()
    values = _percentiles(latencies.percentiles())
    at_arrival = {Measure.E2E, Measure.REPLY, Measure.HTTP}
    length_s = _came_out_s(run) if measure in at_arrival else run.elapsed_s
    return {"count": values.pop("count"), "rate": _ratio(latencies.count, length_s, 3), **values}


def _came_out_s(run: Run) -> float:
    return run.elapsed_s if run.came_out_s is None else run.came_out_s


def _second(second: Second, measures: Collection[Measure]) -> dict[str, Any]:
    times = {
        measure.value: _percentiles(values) for measure, values in second.latency_ms.items() if measure in measures
    }
    return {**{name: value for name, value in asdict(second).items() if name != "latency_ms"}, **times}


def _percentiles(values: Percentiles) -> dict[str, Any]:
    return {"count": values.count, **{f"{name}_ms": getattr(values, name) for name in _TIMES}}


def _ratio(part: float | None, whole: float | None, digits: int) -> float | None:
    return round(part / whole, digits) if part is not None and whole else None


def facts(report: Mapping[str, Any]) -> Rows:
    """Return the plan and the outcome as rows of (name, text)."""
    run = report["run"]
    rows: Rows = [
        ("plan", f"{run['plan']} ({run['model']} model, seed {run['seed']})"),
        ("to", f"{run['queue']} at {run['broker']}"),
        ("started", f"{run['started_at']}, infertool {run['version']}"),
        ("sent", _sent(report)),
    ]
    if Measure.SEND in run["measures"]:
        rows.append(("confirmed", f"{figure(report['confirmed'])} by the broker"))
    if Measure.E2E in run["measures"]:
        rows.append(("came out", _came_out(report)))
        rows.append(("queue", _queue(report)))
    if Measure.REPLY in run["measures"]:
        rows.append(("replies", _replies(report)))
    if Measure.HTTP in run["measures"]:
        rows += _responses(report)
    if report["cpu_s"] is not None:
        rows.append(("processor", f"{report['cpu_s']:.2f} s: {_percent(report['cpu_share'])} of a core"))
    return rows


def _sent(report: Mapping[str, Any]) -> str:
    parts = [
        f"{figure(report['sent'])} of {figure(report['planned'])} planned in {report['elapsed_s']:.1f} s",
        f"{figure(report['sent_rate'])}/s of {figure(report['planned_rate'])}/s",
    ]
    parts += [f"{figure(report[name])} {name}" for name in ("late", "dropped", "unsent", "poison") if report[name]]
    return ", ".join(parts)


def _came_out(report: Mapping[str, Any]) -> str:
    dead = f" ({figure(report['dead_lettered'])} dead letters)" if report["dead_lettered"] is not None else ""
    names = (
        ("queued", "lost", "duplicates", "out_of_order") if report["queued"] else ("lost", "duplicates", "out_of_order")
    )
    others = ", ".join(f"{figure(report[name])} {_WORDS.get(name, name)}" for name in names)
    return f"{figure(report['results'])} results + {figure(report['failures'])} failures{dead}, {others}"


def _replies(report: Mapping[str, Any]) -> str:
    others = ", ".join(f"{figure(report[name])} {_WORDS.get(name, name)}" for name in ("lost", "duplicates"))
    came = f"{figure(report['results'])} results + {figure(report['failures'])} failures"
    return f"{came}, {figure(report['timed_out'])} timed out, {others}"


def _responses(report: Mapping[str, Any]) -> Rows:
    refused = f"{figure(report['shed'])} shed (429), {figure(report['unavailable'])} unavailable (503)"
    came = f"{figure(report['results'])} results, {refused}, {figure(report['failures'])} failures"
    rows: Rows = [("responses", f"{came}, {figure(report['timed_out'])} timed out, {figure(report['lost'])} lost")]
    if report["statuses"]:
        rows.append(("statuses", ", ".join(f"{figure(count)} x {text}" for text, count in report["statuses"].items())))
    if report["retried"] is not None:
        share = _percent(report["retry_served_share"])
        served = f"{figure(report['retry_served'])} of {figure(report['retried'])} served ({share})"
        rows.append(("retries", f"{served} at the time that Retry-After told"))
    return rows


def _queue(report: Mapping[str, Any]) -> str:
    before, after = (figure(report[name]) for name in ("queue_before", "queue_after"))
    return f"{before} messages at the start, {after} at the end"


def times(report: Mapping[str, Any]) -> Rows:
    """Return a header and a row for each measure that was taken; times in milliseconds."""
    rows: Rows = [("ms", *_HEAD)]
    for measure in Measure:
        if report[measure] is not None:
            rows.append((measure.value, *(figure(report[measure][name]) for name in FIGURES)))
    return rows


def comparison_rows(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> Rows:
    """Return a header and a row for each figure that differs: every run's, with difference and ratio to the first."""
    rows: Rows = [("", names[0], *(cell for name in names[1:] for cell in (name, "difference", "ratio")))]
    for row in compare(reports):
        if len(set(row.values)) == 1:
            continue
        cells = [row.name, figure(row.values[0])]
        for value, difference, ratio in zip(row.values[1:], row.differences, row.ratios, strict=True):
            cells += [
                figure(value),
                UNKNOWN if difference is None else f"{'+' if difference > 0 else ''}{figure(difference)}",
                UNKNOWN if ratio is None else f"{ratio:.3f}x",
            ]
        rows.append(tuple(cells))
    return rows


def remarks(report: Mapping[str, Any]) -> list[str]:
    """Return the remarks that a reader needs before the figures."""
    return [
        *([] if report["complete"] else [CUT_SHORT]),
        *([CLOSED] if report["run"]["model"] == "closed" else []),
        *report["notes"],
    ]


def actual(verdict: Mapping[str, Any]) -> str:
    """Return the figures that an assertion names, with their values."""
    return ", ".join(f"{name} = {_exact(value)}" for name, value in verdict["actual"].items())


def figure(value: float | None) -> str:
    """Return a figure as text: three or four digits, whole numbers in full."""
    if value is None:
        return UNKNOWN
    if value == int(value) or abs(value) >= _WHOLE:
        return f"{value:,.0f}"
    if abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:,.{2 if abs(value) < 100 else 1}f}"  # noqa: PLR2004 - digits, not limits


def _exact(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.12g}"


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share * 100:.1f} %"
