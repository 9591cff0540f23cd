"""What a terminal shows that is too small for the lists: that it is, and the figures that matter most."""

from __future__ import annotations

from infertool.watch.bus import Bus
from infertool.watch.glyphs import Glyphs
from infertool.watch.ink import Ink, Line
from infertool.watch.widgets.inked import Inked
from infertool.watch.words import count, percent, rate

LEAST_WIDTH, LEAST_HEIGHT = 80, 24


class TooSmall(Inked):
    """Stands in for everything else below 80x24."""

    DEFAULT_CSS = """
    TooSmall { width: 100%; height: 100%; display: none; background: $background; }
    """

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="too-small")
        self._glyphs = glyphs
        self._lines: list[Line] = []

    def show(self, bus: Bus) -> None:
        """Draw the figures as they are now."""
        width, height = self.size
        recent = bus.state.recent(bus.now())
        totals = bus.state.totals
        self._lines = [
            [(f"{width}x{height} is too small,", Ink.WARN)],
            [(f"{LEAST_WIDTH}x{LEAST_HEIGHT} is needed", Ink.WARN)],
            [(f"{rate(recent.rate)}/s, {percent(recent.success)} ok", Ink.STRONG)],
            [(f"{count(totals.failures)} failed", Ink.FAIL if totals.failures else Ink.PLAIN)],
            [(f"{len(bus.state.rules)} alerts fire", Ink.WARN if bus.state.rules else Ink.PLAIN)],
        ]
        self.refresh()

    def line(self, y: int) -> tuple[Line, bool]:
        """Return a line of figures."""
        return (self._lines[y] if y < len(self._lines) else []), False
