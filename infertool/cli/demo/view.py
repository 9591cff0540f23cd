"""The view of the demo: a live table on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infertool.channels.event import ChannelEvent
from infertool.cli.common import console, eventlines
from infertool.hangup import tolerant
from infertool.load.record import Second
from infertool.load.tally import Measure, Tally
from infertool.telemetry.latencies import Percentiles
from infertool.text.sanitize import clean

if TYPE_CHECKING:
    from rich.console import RenderableType


REFRESH_PER_S = 8
ROWS = 12


class View:
    """Shows events. `add` and `second` may be called from any thread."""

    def __init__(self, *, silent: bool) -> None:
        self._latest = Percentiles()
        self._silent = silent
        self._live = not silent and console.on_terminal()
        self._results: deque[str] = deque(maxlen=ROWS)
        self._alerts: deque[str] = deque(maxlen=ROWS // 3)
        self._lock = threading.Lock()

    def add(self, event: ChannelEvent) -> None:
        """Show one event."""
        if self._silent:
            return
        if not self._live:
            console.out(eventlines.line(event))
            return
        line = clean(f"{eventlines.clock(event.at)}  {eventlines.gist(event)}")
        with self._lock:
            (self._results if event.event == "new_result" else self._alerts).append(line)

    def second(self, second: Second) -> None:
        """Show the latencies of a second."""
        self._latest = second.latency_ms.get(Measure.E2E, self._latest)

    @contextmanager
    def shown(self, dashboard: str, tally: Tally) -> Iterator[None]:
        """Show the view while the block runs."""
        if not self._silent:
            console.err(f"dashboard: {dashboard}   (Ctrl-C ends early)")
        if not self._live:
            yield
            return
        from rich.console import Console
        from rich.live import Live

        terminal = Console(file=tolerant(sys.stdout))
        with Live(
            console=terminal, get_renderable=lambda: self._render(tally), refresh_per_second=REFRESH_PER_S,
        ):  # fmt: skip
            yield

    def _render(self, tally: Tally) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        with self._lock:
            results, alerts = list(self._results), list(self._alerts)
        totals, times = tally.totals(), self._latest
        sent, came = totals["sent"], totals["results"] + totals["failures"]
        counts = f"{sent} sent, {totals['results']} results, {totals['failures']} failures, {sent - came} in work"
        return Group(
            _panel("results", results, ROWS, "green"),
            _panel("alerts", alerts, ROWS // 3, "red"),
            Text(f"{counts}; from send to screen in the last second p50 {_ms(times.p50)}, p99 {_ms(times.p99)}"),
        )


def _panel(title: str, lines: list[str], rows: int, colour: str) -> RenderableType:
    from rich.panel import Panel
    from rich.text import Text

    text = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
    return Panel(text, title=title, title_align="left", height=rows + 2, border_style=colour)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
