"""Widgets that draw styled lines: the base class, panes, and the header."""

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
    """A widget that draws the lines that `line` returns. A selected line has another background."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*(f"style--{style}" for style in TextStyle), "style--chosen"}
    DEFAULT_CSS = """
    StyledLines {
        & > .style--dim { color: $style-dim; }
        & > .style--strong { color: $style-strong; text-style: bold; }
        & > .style--title { color: $style-dim; text-style: bold; }
        & > .style--ok { color: $success; }
        & > .style--fail { color: $error; }
        & > .style--warn { color: $warning; }
        & > .style--accent { color: $primary; }
        & > .style--spark { color: $style-bar; }
        & > .style--bar { color: $style-bar; background: $style-empty; }
        & > .style--low { color: $warning; background: $style-empty; }
        & > .style--empty { color: $style-bar; background: $style-empty; }
        & > .style--key { color: $primary; }
        & > .style--string { color: $style-string; }
        & > .style--number { color: $warning; }
        & > .style--chosen { background: $chosen; text-style: bold; }
    }
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._rich_styles: dict[str, Style] = {}

    def line(self, y: int) -> tuple[Line, bool]:
        """Return line `y` of the widget, and whether it is selected."""
        raise NotImplementedError

    def notify_style_update(self) -> None:
        """Clear the cached styles: the theme changed."""
        self._rich_styles.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        spans, chosen = self.line(y)
        base = self.rich_style + self._style("chosen") if chosen else self.rich_style
        strip = Strip([Segment(text, base + self._style(style)) for text, style in spans if text])
        return strip.adjust_cell_length(self.size.width, base)

    def _style(self, name: str) -> Style:
        style = self._rich_styles.get(name)
        if style is None:
            style = self._rich_styles[name] = self.get_component_rich_style(f"style--{name}", partial=True)
        return style


class Pane(StyledLines, can_focus=True):
    """A pane with a border, a title and a scroll bar."""

    DEFAULT_CSS = """
    Pane {
        border: round $line;
        border-title-color: $style-strong;
        border-title-style: bold;
        border-subtitle-color: $style-dim;
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
        """Move the cursor, or scroll."""
        raise NotImplementedError

    def go_to(self, row: int) -> None:
        """Go to a row, counted over all pages."""
        raise NotImplementedError

    def page(self) -> int:
        """Return the number of rows on a page."""
        raise NotImplementedError

    def count(self) -> int:
        """Return the number of rows."""
        raise NotImplementedError

    def scroll_sign(self, row: int, top: int) -> Span:
        """Return the scroll bar's cell for a row of the page."""
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
    """The header: the connections of all buses, and the figures of one."""

    DEFAULT_CSS = """
    HeaderBar { height: 3; background: $surface; }
    """

    def __init__(self, buses: Sequence[Bus], glyphs: Glyphs) -> None:
        super().__init__(id="header")
        self._buses = buses
        self._glyphs = glyphs
        self._lines: list[Line] = []

    def show(self, bus: Bus) -> None:
        """Draw the current figures."""
        states = [each.state for each in self._buses]
        lines = headline.lines(states, bus.state, bus.now(), self.size.width, self._glyphs)
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def line(self, y: int) -> tuple[Line, bool]:
        """Return a line of the header."""
        return (self._lines[y] if y < len(self._lines) else []), False
