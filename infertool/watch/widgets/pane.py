"""What the panes share: they take the focus, scroll with the same keys, and show where they are."""

from __future__ import annotations

from infertool.watch.glyphs import Glyphs
from infertool.watch.ink import Ink, Span
from infertool.watch.widgets.inked import Inked


class Pane(Inked, can_focus=True):
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
            return " ", Ink.PLAIN
        length = max(page * page // count, 1)
        start = round((page - length) * top / (count - page))
        return (self.glyphs.thumb, Ink.ACCENT) if start <= row < start + length else (self.glyphs.track, Ink.DIM)
