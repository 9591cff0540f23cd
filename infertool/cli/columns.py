"""Chosen fields of events in columns, for people. Nothing from an event reaches the terminal raw."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from infertool.cli.template import NOTHING
from infertool.feed.arrival import Arrival
from infertool.feed.paths import MISSING, Path
from infertool.printable import clean

# Terminal cells of a column at most; the last one may take more.
WIDEST = 40
LAST_WIDEST = 200
_GAP = "  "


class Columns:
    """Makes a line an event. A column grows with what it holds; the names stand above the first line."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._widths = [0] * len(paths)
        self._headed = False

    def lines(self, arrivals: Sequence[Arrival]) -> list[str]:
        """Return the lines."""
        rows = [[_shown(path, arrival) for path in self._paths] for arrival in arrivals]
        if not self._headed:
            self._headed = True
            rows.insert(0, [clean(path.text) for path in self._paths])
        for row in rows:
            self._widths = [
                min(WIDEST, max(wide, cell_len(each))) for wide, each in zip(self._widths, row, strict=True)
            ]
        return [self._line(row) for row in rows]

    def _line(self, row: Sequence[str]) -> str:
        *padded, last = row
        cells = [_fit(each, width) for each, width in zip(padded, self._widths, strict=False)]
        return _GAP.join([*cells, _fit(last, min(LAST_WIDEST, cell_len(last)))])


def _shown(path: Path, arrival: Arrival) -> str:
    found = path.shown(arrival)
    # Cut before it is cleaned and measured: it may have millions of characters.
    return NOTHING if found is MISSING else clean(found[: LAST_WIDEST + 1])


def _fit(cell: str, width: int) -> str:
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    return set_cell_size(cell, width - 1) + "…"
