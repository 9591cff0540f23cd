"""What `infertool doctor` shows: a table, JSON, a line for Nagios, metrics for Prometheus' textfile collector."""

from __future__ import annotations

import math
import shutil
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from infertool.app.doctor.result import Result, Status, counts, worst
from infertool.cli.common import console
from infertool.text.sanitize import clean, left, widest

_NARROWEST: Final = 40
# The margin, the status, and the gaps beside names.
_BEFORE_VALUES: Final = 10
_NAGIOS: Final = {Status.OK: "OK", Status.WARN: "WARNING", Status.FAIL: "CRITICAL"}
_NUMBERS: Final = {Status.OK: 0, Status.WARN: 1, Status.FAIL: 2, Status.SKIP: 3}
_STYLES: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIP: "dim"}
# Nagios knows seconds and bytes as units; all else is a plain number.
_UNITS: Final = {"seconds": "s", "bytes": "B"}


def show(results: Sequence[Result], form: str) -> None:
    """Write the results in a form to stdout."""
    if form == "json":
        console.emit_json(document(results))
    elif form == "nagios":
        console.out(nagios(results))
    elif form == "prometheus":
        console.out_data(*prometheus(results))
    else:
        _show_table(results)


def summary_line(result: Result) -> str:
    """Return a result in one line."""
    return f"{_title(result)}: {result.finding.value}"


def document(results: Sequence[Result]) -> dict[str, Any]:
    """Return the results as JSON."""
    return {
        "status": worst(results).value,
        "counts": {status.value: count for status, count in counts(results).items()},
        "checks": [
            {
                "check": result.name,
                "subject": result.subject,
                "status": result.status.value,
                "value": result.finding.value,
                "number": result.finding.number,
                "unit": result.finding.unit or None,
                "hint": result.finding.hint or None,
                "docs": None if result.status is Status.OK else result.anchor,
                "took_ms": round(result.took_s * 1000, 3),
            }
            for result in results
        ],
    }


def nagios(results: Sequence[Result]) -> str:
    """Return one line: status, what is wrong, and after a bar the figures."""
    status = worst(results)
    wrong = [result for result in results if result.status is status and status is not Status.OK]
    text = "; ".join(map(summary_line, wrong)) or _counted(results)
    # A bar begins the figures, and a line break ends the text.
    text = " ".join(text.split()).replace("|", "/")
    figures = [
        f"'{_label(result)}'={result.finding.number:.9g}{_UNITS.get(result.finding.unit, '')}"
        for result in results
        if result.finding.number is not None and math.isfinite(result.finding.number)
    ]
    return f"INFERTOOL {_NAGIOS[status]} - {text} | {' '.join(figures)}"


def _label(result: Result) -> str:
    return " ".join(_title(result).split()).replace("'", "").replace("=", "").replace("|", "/")


def prometheus(results: Sequence[Result]) -> list[str]:
    """Return metrics in the text format: the status as 0 ok, 1 warn, 2 fail, 3 skip; the value; the time it took."""
    figures: tuple[tuple[str, str, Callable[[Result], float | None]], ...] = (
        ("status", "Result of a check: 0 ok, 1 warn, 2 fail, 3 skip.", lambda result: _NUMBERS[result.status]),
        ("value", "Value that a check measured, in its unit.", lambda result: result.finding.number),
        ("duration_seconds", "Time that a check took.", lambda result: round(result.took_s, 6)),
    )
    lines: list[str] = []
    for name, text, figure in figures:
        metric = f"infertool_doctor_{name}"
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge"]
        for result in results:
            value = figure(result)
            if value is not None:
                unit = {"unit": result.finding.unit} if name == "value" else {}
                labels = {"check": result.name, "subject": result.subject, **unit}
                lines.append(f"{metric}{{{_labels(labels)}}} {value:.9g}")
    metric = "infertool_doctor_last_run_timestamp_seconds"
    return [*lines, f"# HELP {metric} Time of the last run.", f"# TYPE {metric} gauge", f"{metric} {time.time():.3f}"]


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _show_table(results: Sequence[Result]) -> None:
    if not console.on_terminal():
        console.out(*table(results, 0))
        return
    from rich.console import Console
    from rich.text import Text

    shown = Text("\n".join(table(results, shutil.get_terminal_size().columns)))
    for status, style in _STYLES.items():
        shown.highlight_regex(rf"(?m)^  {status.value} +(?=\S)", style)
    shown.highlight_regex(r"(?m)^\w+$", "bold")
    Console(highlight=False, soft_wrap=True).print(shown)


def table(results: Sequence[Result], width: int) -> list[str]:
    """Return lines of a table, wrapped to `width` columns; 0 wraps nothing."""
    names = widest([_title(result).partition(".")[2] for result in results])
    lines: list[str] = []
    for category, members in groupby(results, key=lambda result: result.category):
        lines += ([""] if lines else []) + [category]
        for reason, each in groupby(members, key=lambda result: result.finding.blocked_by):
            if reason:
                lines += _blocked(reason, list(each), names, width)
            else:
                lines += [line for result in each for line in _rows(result, names, width)]
    return [*lines, "", _counted(results)]


def _blocked(reason: str, results: Sequence[Result], names: int, width: int) -> list[str]:
    """Return one row for checks that were not run for the same reason."""
    titles = [_title(result).partition(".")[2] for result in results]
    if len(titles) == 1:
        return _row(Status.SKIP, titles[0], f"not checked: {reason}", names, width)
    value = f"{', '.join(titles)}: not checked, {reason}"
    return _row(Status.SKIP, f"{len(titles)} checks", value, names, width)


def _rows(result: Result, names: int, width: int) -> list[str]:
    rows = _row(result.status, _title(result).partition(".")[2], result.finding.value, names, width)
    indent = _indent(names, width)
    if result.finding.hint:
        hint = _wrapped(clean(result.finding.hint), width, indent + 2)
        rows += [f"{' ' * indent}{'→ ' if number == 0 else '  '}{line}" for number, line in enumerate(hint)]
    return rows if result.status is Status.OK else [*rows, f"{' ' * indent}{result.anchor}"]


def _row(status: Status, title: str, value: str, names: int, width: int) -> list[str]:
    head = f"  {status.value:<4}  {left(clean(title), names)}  "
    first, *more = _wrapped(clean(value), width, len(head))
    return [head + first, *(" " * _indent(names, width) + line for line in more)]


def _indent(names: int, width: int) -> int:
    """Return where values begin; nearer to the margin on a narrow terminal."""
    column = names + _BEFORE_VALUES
    return column if not width or width - column >= _NARROWEST else _BEFORE_VALUES


def _wrapped(text: str, width: int, column: int) -> list[str]:
    """Return the lines of a text that begins in `column`."""
    if not width:
        return [text]
    return textwrap.wrap(text, max(_NARROWEST, width - column), break_on_hyphens=False) or [""]


def _title(result: Result) -> str:
    return f"{result.name} {result.subject}".rstrip()


def _counted(results: Sequence[Result]) -> str:
    words = {Status.OK: "ok", Status.WARN: "warnings", Status.FAIL: "failed", Status.SKIP: "skipped"}
    return ", ".join(f"{count} {words[status]}" for status, count in counts(results).items())
