"""Two or more runs side by side: every figure, and how far each run is from the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infertool.load.report import figures


@dataclass(frozen=True, slots=True)
class Row:
    """One figure in every run. `differences` and `ratios` are to the first run; None where that cannot be said."""

    name: str
    values: tuple[float | None, ...]

    @property
    def differences(self) -> tuple[float | None, ...]:
        """How much more each run has than the first."""
        first, *others = self.values
        return tuple(
            None if first is None or other is None else round(other - first, 6) for other in others
        )  # fmt: skip

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """How many times the first run's value each run has."""
        first, *others = self.values
        return tuple(None if not first or other is None else round(other / first, 4) for other in others)


def compare(reports: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the figures that at least one of the runs has."""
    columns = [figures(report) for report in reports]
    rows = [Row(name, tuple(column[name] for column in columns)) for name in columns[0]]
    return [row for row in rows if any(value is not None for value in row.values)]


def document(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return runs and their comparison, for JSON."""
    rows = {
        row.name: {"values": row.values, "differences": row.differences, "ratios": row.ratios}
        for row in compare(reports)
    }
    return {"runs": [{"file": name, **report} for name, report in zip(names, reports, strict=True)], "comparison": rows}
