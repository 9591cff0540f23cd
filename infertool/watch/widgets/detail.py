"""The pane of one event in full."""

from __future__ import annotations

from rich.cells import cell_len

from infertool.watch import detail
from infertool.watch.entry import Entry
from infertool.watch.style import Glyphs, Line, TextStyle
from infertool.watch.widgets.lines import Pane

_WHEEL_ROWS = 3


class Detail(Pane):
    """Shows an entry. It stays when the list drops the entry."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs, id="detail")
        self.entry: Entry | None = None
        self._lines: list[Line] = []
        self._top = 0
        self._shown: tuple[Entry | None, int] | None = None
        self.border_title = "event"

    def show(self, now: float) -> None:
        """Draw `entry` as it is now: another one from its beginning."""
        entry, width = self.entry, max(self.size.width - 3, 1)
        if self._shown == (entry, width) or not self.size.height:
            return
        if self._shown is None or self._shown[0] is not entry:
            self._top = 0
        self._shown = (entry, width)
        self._lines = (
            detail.lines(entry, now, width, self.glyphs) if entry else [[("Nothing is selected.", TextStyle.DIM)]]
        )
        self.refresh()

    def line(self, y: int) -> tuple[Line, bool]:
        """Return a line of the event."""
        line = self._lines[self._top + y] if self._top + y < len(self._lines) else []
        used = 1 + sum(cell_len(text) for text, _ in line)
        return [
            (" ", TextStyle.PLAIN),
            *line,
            (" " * max(self.size.width - 1 - used, 0), TextStyle.PLAIN),
            self.scroll_sign(y, self._top),
        ], False

    def move(self, rows: int) -> None:
        """Scroll."""
        self.go_to(self._top + rows)

    def go_to(self, row: int) -> None:
        """Scroll to a row."""
        self._top = min(max(row, 0), max(len(self._lines) - self.page(), 0))
        self.refresh()

    def page(self) -> int:
        """Return how many rows a page has."""
        return max(self.size.height, 1)

    def count(self) -> int:
        """Return how many rows there are."""
        return len(self._lines)

    def on_mouse_scroll_down(self) -> None:
        """Scroll down."""
        self.move(_WHEEL_ROWS)

    def on_mouse_scroll_up(self) -> None:
        """Scroll up."""
        self.move(-_WHEEL_ROWS)
