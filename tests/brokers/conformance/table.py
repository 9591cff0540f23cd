"""The table of adapters and cases in docs/brokers.md: read, compared and written."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import conformance
from tests.brokers.conformance.targets import TARGETS

DOCUMENT = Path(__file__).parents[3] / "docs" / "brokers.md"
BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
OPTION = "--write-conformance"
PROPERTY = "conformance"
Cells = dict[str, dict[str, str]]


@cache
def read() -> Cells:
    """Return what the document says, by case and column."""
    rows = [_cells(line) for line in section().splitlines() if line.startswith("|")]
    columns = rows[0][1:] if rows else []
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows[2:]}


def section() -> str:
    """Return the generated part of the document."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


def columns() -> list[str]:
    return [target.column for target in TARGETS if target.column]


def cases() -> list[str]:
    """Return every case of the suite, in its order."""
    return list(dict.fromkeys(_all_cases()))


def _all_cases() -> Iterator[str]:
    for module in sorted(each.name for each in pkgutil.iter_modules(conformance.__path__)):
        if not module.startswith("test_"):
            continue
        for function in vars(importlib.import_module(f"{conformance.__name__}.{module}")).values():
            marks = getattr(function, "pytestmark", [])
            for mark in marks:
                if mark.name == "case":
                    yield from _texts(mark, marks)


def _texts(mark: pytest.Mark, marks: list[pytest.Mark]) -> Iterator[str]:
    """Return the names of one test: its text may name one parameter."""
    if "{" not in mark.args[0]:
        yield mark.args[0]
        return
    for each in marks:
        if each.name == "parametrize" and "{" + each.args[0] + "}" in mark.args[0]:
            yield from (mark.args[0].format(**{each.args[0]: value}) for value in each.args[1])


def write(found: Cells) -> None:
    """Put `found` into the document; what was not found anew stays as it is."""
    known = read()
    lines = [_row(["case", *columns()]), _row(["---"] * (len(columns()) + 1))]
    otherwise = {target.column: target.otherwise for target in TARGETS}
    for case in cases():
        cells = {**known.get(case, {}), **found.get(case, {})}
        lines.append(_row([case, *(cells.get(column, otherwise[column]) for column in columns())]))
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


class Writer:
    """A pytest plugin that collects what came out of the cases and writes the table at the end."""

    def __init__(self) -> None:
        self.found: Cells = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" or not report.passed:
            return
        for name, value in report.user_properties:
            if name == PROPERTY:
                case, column, verdict = value
                known = self.found.setdefault(case, {}).setdefault(column, verdict)
                # A case may be several tests: they agree, or the case says less than it should.
                assert known == verdict, (case, column, known, verdict)

    def pytest_sessionfinish(self) -> None:
        write(self.found)
