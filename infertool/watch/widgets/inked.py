"""The base of all widgets that draw lines of spans: only what is visible is asked for."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from infertool.watch.ink import Ink, Line


class Inked(Widget):
    """Draws what `line` returns. `chosen` lines have another background."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*(f"ink--{ink}" for ink in Ink), "ink--chosen"}
    DEFAULT_CSS = """
    Inked {
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
        base = self.rich_style + self._ink("chosen") if chosen else self.rich_style
        strip = Strip([Segment(text, base + self._ink(ink)) for text, ink in spans if text])
        return strip.adjust_cell_length(self.size.width, base)

    def _ink(self, name: str) -> Style:
        style = self._inks.get(name)
        if style is None:
            style = self._inks[name] = self.get_component_rich_style(f"ink--{name}", partial=True)
        return style
