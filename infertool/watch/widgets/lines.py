"""The top of the screen: connections, rates and latencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from infertool.watch import headline
from infertool.watch.bus import Bus
from infertool.watch.formatting import Glyphs, Line, Span, TextStyle


class StyledLines(Widget):
    """Draws what `line` returns. `chosen` lines have another background."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*(f"ink--{style}" for style in TextStyle), "ink--chosen"}
    DEFAULT_CSS = """
    StyledLines {
        & > .ink--dim { color: $ink-dim; }
        & > .ink--strong { color: $ink-strong; text-style: bold; }
        & > .ink--title { color: $ink-dim; text-style: bold; }
        & > .ink--ok { color: $success; }
        & > .ink--fail { color: $error; }
        & > .ink--warn { color: $warning; }
        & > .ink--accent { color: $primary; }
        & > .ink--spark { color: $ink-bar; }
        & > .ink--bar { color: $ink-bar; background: $ink-empty; }
        & > .ink--low { color: $warning; background: $ink-empty; }
        & > .ink--empty { color: $ink-bar; background: $ink-empty; }
        & > .ink--key { color: $primary; }
        & > .ink--string { color: $ink-string; }
        & > .ink--number { color: $warning; }
        & > .ink--chosen { background: $chosen; text-style: bold; }
    }
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._inks: dict[str, Style] = {}

    def line(self, y: int) -> tuple[Line, bool]:
        """Return line `y` of the widget, and whether it is the chosen one."""
        raise NotImplementedError

    def notify_style_update(self) -> None:
        """Forget the colours: the theme changed."""
        self._inks.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        spans, chosen = self.line(y)
        base = self.rich_style + self._style("chosen") if chosen else self.rich_style
        strip = Strip([Segment(text, base + self._style(style)) for text, style in spans if text])
        return strip.adjust_cell_length(self.size.width, base)

    def _style(self, name: str) -> Style:
        style = self._inks.get(name)
        if style is None:
            style = self._inks[name] = self.get_component_rich_style(f"ink--{name}", partial=True)
        return style


class Pane(StyledLines, can_focus=True):
    """A pane with a border, a title and a scroll bar."""

    DEFAULT_CSS = """
    Pane {
        border: round $line;
        border-title-color: $ink-strong;
        border-title-style: bold;
        border-subtitle-color: $ink-dim;
        background: $background;
        &:focus { border: heavy $primary; }
        &.-ascii { border: ascii $line; }
        &.-ascii:focus { border: ascii $primary; }
    }
    """

    def __init__(self, glyphs: Glyphs, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.glyphs = glyphs
        self.set_class(glyphs.ascii, "-ascii")

    def move(self, rows: int) -> None:
        """Move the cursor, or what is shown."""
        raise NotImplementedError

    def go_to(self, row: int) -> None:
        """Go to a row, counted from the first."""
        raise NotImplementedError

    def page(self) -> int:
        """Return how many rows a page has."""
        raise NotImplementedError

    def count(self) -> int:
        """Return how many rows there are."""
        raise NotImplementedError

    def scroll_sign(self, row: int, top: int) -> Span:
        """Return the scroll bar's cell beside a row of the page."""
        page, count = self.page(), self.count()
        if count <= page:
            return " ", TextStyle.PLAIN
        length = max(page * page // count, 1)
        start = round((page - length) * top / (count - page))
        return (
            (self.glyphs.thumb, TextStyle.ACCENT)
            if start <= row < start + length
            else (self.glyphs.track, TextStyle.DIM)
        )


class HeaderBar(StyledLines):
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
