"""The pane of one event in full: times, source, and the payload as indented JSON, all sanitized."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.cells import cell_len

from infertool.text import json_text
from infertool.text.sanitize import clean
from infertool.watch.entry import Entry, Kind, seconds, text
from infertool.watch.formatting import Glyphs, Line, TextStyle, clock, ms, size, span, take
from infertool.watch.widgets.lines import Pane

# Maximum of JSON that is shown; the export has all of it. Bytes.
MOST_SHOWN = 100_000
_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b)|([^"\d\-tfn]+|.)')
_HEADS = ("event_id", "traceparent")


def lines(entry: Entry, now: float, width: int, glyphs: Glyphs) -> list[Line]:
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
    for name in _HEADS:
        if name in fields:
            yield _pair(name, text(fields[name]))
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
        self._lines = lines(entry, now, width, self.glyphs) if entry else [[("Nothing is selected.", TextStyle.DIM)]]
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
