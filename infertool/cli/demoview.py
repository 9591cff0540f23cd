"""What the demo shows: a live table on a terminal, a line an event elsewhere."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infertool.cli import console, pretty
from infertool.feed.arrival import Arrival
from infertool.load.book import SendBook
from infertool.telemetry.logs import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_PER_S = 8
ROWS = 12


class View:
    """Shows events as they come. `add` may be called from any thread."""

    def __init__(self, book: SendBook, *, silent: bool) -> None:
        self._book = book
        self._silent = silent
        self._live = not silent and sys.stdout.isatty()
        self._results: deque[str] = deque(maxlen=ROWS)
        self._alerts: deque[str] = deque(maxlen=ROWS // 3)
        self._lock = threading.Lock()

    def add(self, arrival: Arrival) -> None:
        """Show one event."""
        if self._silent:
            return
        if not self._live:
            console.out(pretty.line(arrival))
            return
        line = clean(f"{pretty.clock(arrival.at)}  {pretty.gist(arrival.payload)}")
        with self._lock:
            (self._results if arrival.event == "new_result" else self._alerts).append(line)

    @contextmanager
    def shown(self, dashboard: str) -> Iterator[None]:
        """Show what comes while the block runs."""
        if not self._silent:
            console.err(f"dashboard: {dashboard}   (Ctrl-C ends early)")
        if not self._live:
            yield
            return
        from rich.live import Live

        with Live(get_renderable=self._render, refresh_per_second=REFRESH_PER_S):
            yield

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        with self._lock:
            results, alerts = list(self._results), list(self._alerts)
        tally = self._book.tally()
        p50, p99 = tally.latency_ms.p50, tally.latency_ms.p99
        counts = f"{tally.sent} sent, {tally.results} results, {tally.failures} failures, {tally.lost} in work"
        return Group(
            _panel("results", results, ROWS, "green"),
            _panel("alerts", alerts, ROWS // 3, "red"),
            Text(f"{counts}; from send to screen p50 {p50} ms, p99 {p99} ms"),
        )


def _panel(title: str, lines: list[str], rows: int, colour: str) -> RenderableType:
    from rich.panel import Panel
    from rich.text import Text

    text = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
    return Panel(text, title=title, title_align="left", height=rows + 2, border_style=colour)
