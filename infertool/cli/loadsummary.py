"""A load report as text for a terminal; the same at the end of a run and from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infertool import cells
from infertool.errors import InfertoolError
from infertool.load import summary as words
from infertool.printable import clean


def summary(report: Mapping[str, Any], name: str = "") -> list[str]:
    """Return the summary of one report as lines; `name` is that of its file."""
    facts = words.facts(report)
    width = cells.widest(label for label, _ in facts)
    lines = [name] if name else []
    lines += [f"{cells.right(label, width)}  {text}" for label, text in facts]
    lines += ["", *_aligned(words.times(report))]
    notes = [f"note: {text}" for text in words.remarks(report)]
    verdicts = [
        f"{'held' if verdict['passed'] else 'FAILED'}  {verdict['expression']}  ({words.actual(verdict)})"
        for verdict in report["asserts"]
    ]
    return [*lines, *([""] if notes or verdicts else []), *notes, *verdicts]


def check(report: Mapping[str, Any], *, of: str = "") -> None:
    """Raise InfertoolError, which ends with exit code 1, naming the assertions that do not hold and their figures."""
    failed = [f"{each['expression']!r} ({words.actual(each)})" for each in report["asserts"] if not each["passed"]]
    if failed:
        where = f" in {of}" if of else ""
        raise InfertoolError(f"--assert does not hold{where}: {'; '.join(failed)}")


def compared(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return runs side by side, as lines."""
    return _aligned(words.compared(names, reports))


def _aligned(rows: words.Rows) -> list[str]:
    shown = [[clean(cell) for cell in row] for row in rows]
    return cells.aligned(shown, rights=[False, *[True] * (len(rows[0]) - 1)])
