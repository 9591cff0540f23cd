"""A report in words and rows of text, for a terminal, a page and a picture. Not yet clean for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from infertool.load.report import FIGURES, compare
from infertool.load.tally import Measure

Rows = list[tuple[str, ...]]
UNKNOWN: Final = "-"
CUT_SHORT: Final = (
    "the file ends early: the run was killed or is still going; what is here is all up to its last second"
)
CLOSED: Final = (
    "closed model: an event is sent when an earlier one has come back, so a slow consumer slows the load, "
    "and latencies look better than they are for those who do not wait"
)
_WORDS: Final = {"queued": "still queued", "out_of_order": "out of order"}
_TIMES = ("count", "rate/s", "mean", "p50", "p90", "p99", "p99.9", "max")


def facts(report: Mapping[str, Any]) -> Rows:
    """Return what was asked and what came of it, as (name, text)."""
    run = report["run"]
    told: Rows = [
        ("plan", f"{run['plan']} ({run['model']} model, seed {run['seed']})"),
        ("to", f"{run['queue']} at {run['broker']}"),
        ("started", f"{run['started_at']}, infertool {run['version']}"),
        ("sent", _sent(report)),
    ]
    if Measure.SEND in run["measures"]:
        told.append(("confirmed", f"{figure(report['confirmed'])} by the broker"))
    if Measure.E2E in run["measures"]:
        told.append(("came out", _came_out(report)))
        told.append(("queue", _queue(report)))
    if report["cpu_s"] is not None:
        told.append(("processor", f"{report['cpu_s']:.2f} s: {_percent(report['cpu_share'])} of a core"))
    return told


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


def _queue(report: Mapping[str, Any]) -> str:
    before, after = (figure(report[name]) for name in ("queue_before", "queue_after"))
    return f"{before} messages at the start, {after} at the end"


def times(report: Mapping[str, Any]) -> Rows:
    """Return a head and a row for each measure that was taken; times in milliseconds."""
    rows: Rows = [("ms", *_TIMES)]
    for measure in Measure:
        if report[measure] is not None:
            rows.append((measure.value, *(figure(report[measure][name]) for name in FIGURES)))
    return rows


def compared(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> Rows:
    """Return a head and a row for each figure that differs: every run's, with difference and ratio to the first."""
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
    """Return what a reader must know before the figures."""
    return [
        *([] if report["complete"] else [CUT_SHORT]),
        *([CLOSED] if report["run"]["model"] == "closed" else []),
        *report["notes"],
    ]


def actual(verdict: Mapping[str, Any]) -> str:
    """Return the figures an assertion names, as they were."""
    return ", ".join(f"{name} = {_exact(value)}" for name, value in verdict["actual"].items())


def figure(value: float | None) -> str:
    """Return a figure as people read it: three or four digits, whole numbers in full."""
    if value is None:
        return UNKNOWN
    if value == int(value) or abs(value) >= _WHOLE:
        return f"{value:,.0f}"
    if abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:,.{2 if abs(value) < 100 else 1}f}"  # noqa: PLR2004 - digits, not limits


_WHOLE = 1000


def _exact(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.12g}"


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share * 100:.1f} %"
