"""The top of the screen: connections, rates and latencies."""

from __future__ import annotations

from collections.abc import Sequence

from infertool.watch import headline
from infertool.watch.bus import Bus
from infertool.watch.glyphs import Glyphs
from infertool.watch.ink import Line
from infertool.watch.widgets.inked import Inked


class HeaderBar(Inked):
    """Shows one bus of several in figures, and the connections of all."""

    DEFAULT_CSS = """
    HeaderBar { height: 3; background: $surface; }
    """

    def __init__(self, buses: Sequence[Bus], glyphs: Glyphs) -> None:
        super().__init__(id="header")
        self._buses = buses
        self._glyphs = glyphs
        self._lines: list[Line] = []

    def show(self, bus: Bus) -> None:
        """Draw the figures as they are now."""
        states = [each.state for each in self._buses]
        lines = headline.lines(states, bus.state, bus.now(), self.size.width, self._glyphs)
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def line(self, y: int) -> tuple[Line, bool]:
        """Return a line of figures."""
        return (self._lines[y] if y < len(self._lines) else []), False
