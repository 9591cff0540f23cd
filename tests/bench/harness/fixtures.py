"""The types of what the benchmarks' fixtures give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

# Adds a row to the table that is printed at the end: case, figure, goal.
Row = Callable[[str, str, str], None]


class Fill(Protocol):
    """Fills a new queue with reference events and names it."""

    def __call__(
        self, count: int, *, persistent: bool = True, headers: Callable[[int], Mapping[str, str]] = ...
    ) -> str: ...


class FillQueue(Protocol):
    """Fills the queue that is measured with reference events."""

    def __call__(self, count: int) -> None: ...
