"""Panes that draw styled lines: the base class, the header, and the detail of one event. All text is sanitized."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from infertool.telemetry.trace_context import trace_id_of
from infertool.text import json_text
from infertool.text.sanitize import clean
from infertool.watch.bus import Bus
from infertool.watch.entry import Entry, Kind, seconds, text
from infertool.watch.formatting import Glyphs, Line, Span, TextStyle, clock, ms, size, span, take
from infertool.watch.rows import header_lines


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
        lines = header_lines(states, bus.state, bus.now(), self.size.width, self._glyphs)
        if lines != self._lines:
            if len(lines) != len(self._lines):
                self.styles.height = len(lines)
            self._lines = lines
            self.refresh()

    def line(self, y: int) -> tuple[Line, bool]:
        """Return a line of the header."""
        return (self._lines[y] if y < len(self._lines) else []), False


# Maximum of JSON that is shown; the export has all of it. Bytes.
MOST_SHOWN = 100_000
_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b)|([^"\d\-tfn]+|.)')


def detail_lines(entry: Entry, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """Return the lines of an entry, folded to `width` cells."""
    if entry.kind is Kind.GAP:
        return [*_folded([(clean(entry.label), TextStyle.WARN)], width, glyphs)]
    payload = entry.payload
    found = [line for line in _about(entry, payload, now) for line in _folded(line, width, glyphs)]
    found.append([])
    for line in _json(entry.body):
        found += _folded(line, width, glyphs)
    if len(entry.body) > MOST_SHOWN:
        found += _folded(
            [(f"cut here: the payload has {size(len(entry.body))}; e exports it", TextStyle.WARN)], width, glyphs
        )
    return found


def _about(entry: Entry, payload: Any, now: float) -> Iterator[Line]:
    fields = payload if isinstance(payload, dict) else {}
    yield _pair("event", f"{entry.event} on {entry.topic}")
    yield _pair("arrived", f"{clock(entry.at)}, {span(max(now - entry.at, 0))} ago")
    for name in ("received_at", "completed_at", "failed_at"):
        at = seconds(fields.get(name))
        if at is not None:
            yield _pair(name.removesuffix("_at"), f"{clock(at)}, {ms((entry.at - at) * 1000)} before it arrived")
    if entry.processing_ms is not None:
        yield _pair("model", ms(entry.processing_ms))
    if entry.latency_s is not None:
        differ = " (the clocks differ)" if entry.latency_s < 0 else ""
        yield _pair("end to end", ms(entry.latency_s * 1000) + differ)
    if "event_id" in fields:
        yield _pair("event_id", text(fields["event_id"]))
    if trace_id := trace_id_of(fields):
        yield _pair("trace", trace_id)
    if isinstance(trace := fields.get("traceback"), str):
        for number, line in enumerate(trace.split("\n")):
            yield _pair("" if number else "traceback", line)


def _pair(name: str, value: str) -> Line:
    return [(f"{name:<12} ", TextStyle.DIM), (clean(value), TextStyle.PLAIN)]


def _json(body: bytes) -> Iterator[Line]:
    shown = json_text.pretty(body)[:MOST_SHOWN].decode("utf-8", "ignore")
    for line in shown.split("\n"):
        yield _coloured(clean(line))


def _coloured(line: str) -> Line:
    spans: Line = []
    for string, colon, literal, other in _TOKENS.findall(line):
        if string:
            spans.append((string, TextStyle.KEY if colon else TextStyle.STRING))
            spans.append((colon, TextStyle.DIM))
        else:
            spans.append((literal, TextStyle.NUMBER) if literal else (other, TextStyle.DIM))
    return spans


def _folded(line: Line, width: int, glyphs: Glyphs) -> Iterator[Line]:
    """Split a line into lines of at most `width` cells."""
    row: Line = []
    room = width
    for full, style in line:
        rest = glyphs.safe(full)
        while rest:
            if room <= 0:
                yield row
                row, room = [], width
            head, rest = take(rest, room)
            if not head and not row:  # a wide character in a single cell
                head, rest = rest[0], rest[1:]
            row.append((head, style))
            room -= cell_len(head) if head else room
    yield row


_WHEEL_ROWS = 3


class Detail(Pane):
    """Shows one entry, even after the list has dropped it."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs, id="detail")
        self.entry: Entry | None = None
        self._lines: list[Line] = []
        self._top = 0
        self._shown: tuple[Entry | None, int] | None = None
        self.border_title = "event"

    def show(self, now: float) -> None:
        """Draw `entry`; a new one from its first line."""
        entry, width = self.entry, max(self.size.width - 3, 1)
        if self._shown == (entry, width) or not self.size.height:
            return
        if self._shown is None or self._shown[0] is not entry:
            self._top = 0
        self._shown = (entry, width)
        self._lines = (
            detail_lines(entry, now, width, self.glyphs) if entry else [[("Nothing is selected.", TextStyle.DIM)]]
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
        """Return the number of rows on a page."""
        return max(self.size.height, 1)

    def count(self) -> int:
        """Return the number of rows."""
        return len(self._lines)

    def on_mouse_scroll_down(self) -> None:
        """Scroll down."""
        self.move(_WHEEL_ROWS)

    def on_mouse_scroll_up(self) -> None:
        """Scroll up."""
        self.move(-_WHEEL_ROWS)
