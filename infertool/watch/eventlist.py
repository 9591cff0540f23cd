"""The panes that list entries: results, and failures with alerts.

A pane draws the visible rows of its listing; an event has no widget and no message of its own.
"""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from textual import events
from textual.markup import escape
from textual.message import Message

from infertool.text.sanitize import clean
from infertool.watch.bus import Bus
from infertool.watch.entry import Entry
from infertool.watch.formatting import Glyphs, Line, TextStyle, count, fit
from infertool.watch.listing import Listing, Sort
from infertool.watch.panes import Pane
from infertool.watch.rows import alert_row, column_titles, fit_columns, result_row, rule_row

_WHEEL_ROWS = 3


class EventList(Pane):
    """A list of a bus's entries. Subclasses define the listing and the look of an entry."""

    class Opened(Message):
        """A row was clicked twice."""

    def __init__(self, bus: Bus, glyphs: Glyphs, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(glyphs, id=id)
        self._bus = bus
        self._rows: list[Entry] = []
        self._heads: list[Line] = []
        self._seen: tuple[object, ...] = ()
        self.filter_text = ""

    @property
    def listing(self) -> Listing:
        """The listing that is shown."""
        raise NotImplementedError

    def title(self) -> str:
        """Return the pane's title: its name, order and filter."""
        raise NotImplementedError

    def heads(self, width: int, _now: float) -> list[Line]:
        """Return the lines above the rows."""
        raise NotImplementedError

    def row(self, entry: Entry, width: int, now: float) -> Line:
        """Return the line of an entry."""
        raise NotImplementedError

    def empty(self) -> list[str]:
        """Return the text for an empty list."""
        raise NotImplementedError

    def show(self, bus: Bus) -> None:
        """Draw the list of `bus` if it changed since the last call; ages change every second."""
        self._bus = bus
        if not self.size.height:  # hidden; the position in the list stays
            return
        now = bus.now()
        seen = (
            bus,
            self.listing.version,
            int(now),
            self.size,
            self.has_focus,
            bus.state.connection.state,
            self.title(),
        )
        if seen == self._seen:
            return
        self._seen = seen
        self._heads = self.heads(self.size.width - 1, now)
        height = max(self.size.height - len(self._heads), 1)
        if self.listing.height != height:
            self.listing.resize(height)
        self._rows = self.listing.rows()
        self.border_title = escape(self.glyphs.safe(clean(self.title())))
        self.border_subtitle = escape(self._position())
        self.refresh()

    def line(self, y: int) -> tuple[Line, bool]:
        """Return a heading, a row, or the text for an empty list."""
        width = self.size.width - 1
        if y < len(self._heads):
            return self._heads[y], False
        index = y - len(self._heads)
        if not self._rows:
            text = self.empty()
            return ([(fit(f"  {text[index]}", width, self.glyphs), TextStyle.DIM)] if index < len(text) else []), False
        if index >= len(self._rows):
            return [], False
        chosen = self.listing.top + index == self.listing.cursor
        sign = (f"{self.glyphs.cursor} ", TextStyle.ACCENT) if chosen and self.has_focus else ("  ", TextStyle.PLAIN)
        line = _cut([sign, *self.row(self._rows[index], width - 2, self._bus.now())], width)
        return [*line, self.scroll_sign(index, self.listing.top)], chosen and self.has_focus

    def move(self, rows: int) -> None:
        """Move the cursor."""
        self.listing.move(rows)

    def go_to(self, row: int) -> None:
        """Put the cursor on a row."""
        self.listing.move_to(row)

    def page(self) -> int:
        """Return the number of rows on a page."""
        return self.listing.height

    def count(self) -> int:
        """Return the number of rows."""
        return self.listing.count

    def on_click(self, event: events.Click) -> None:
        """Select the row; on the scroll bar, scroll there; on a double click, open the row."""
        at = event.get_content_offset(self)
        if at is None:
            return
        index = at.y - len(self._heads)
        if at.x >= self.size.width - 1:
            self.listing.move_to(self.listing.count * max(index, 0) // self.listing.height)
        elif 0 <= index < len(self._rows):
            self.listing.set_follow(self.listing.follow and self.listing.top + index == 0)
            self.listing.move_to(self.listing.top + index)
            if event.chain > 1:
                self.post_message(self.Opened())
        self.show(self._bus)

    def on_mouse_scroll_down(self) -> None:
        """Scroll towards older rows."""
        self.listing.scroll(_WHEEL_ROWS)
        self.show(self._bus)

    def on_mouse_scroll_up(self) -> None:
        """Scroll towards newer rows."""
        self.listing.scroll(-_WHEEL_ROWS)
        self.show(self._bus)

    def _position(self) -> str:
        listing = self.listing
        parts = []
        if listing.count:
            last = min(listing.top + listing.height, listing.count)
            parts.append(f"{count(listing.top + 1)}-{count(last)} of {count(listing.count)}")
        if listing.ring.dropped:
            parts.append(f"{count(listing.ring.dropped)} older dropped")
        return ", ".join(parts)


def _cut(line: Line, width: int) -> Line:
    """Cut or pad a line to `width` cells."""
    kept: Line = []
    for text, style in line:
        size = cell_len(text)
        if size > width:
            text = set_cell_size(text, width)  # noqa: PLW2901 - the same text, cut
            size = width
        kept.append((text, style))
        width -= size
    return [*kept, (" " * width, TextStyle.PLAIN)]


# Maximum of firing rules shown above the failures.
_MOST_RULES = 3


class Alerts(EventList):
    """Failures and alerts, newest first."""

    @property
    def listing(self) -> Listing:
        """The failures and alerts."""
        return self._bus.state.alerts

    def title(self) -> str:
        """Return the title with the number of firing rules, and the filter."""
        firing = len(self._bus.state.rules)
        return f"failures and alerts{f', {count(firing)} firing' if firing else ''}{self.filter_text}"

    def heads(self, width: int, _now: float) -> list[Line]:
        """Return the firing rules, newest first."""
        rules = list(reversed(self._bus.state.rules.values()))[:_MOST_RULES]
        return [rule_row(rule, width, _now, self.glyphs) for rule in rules]

    def row(self, entry: Entry, width: int, now: float) -> Line:
        """Return the line of a failure."""
        return alert_row(entry, width, now, self.glyphs)

    def empty(self) -> list[str]:
        """Return the text for an empty list: no failures, or none that match the filter."""
        if self.filter_text and len(self.listing.ring):
            return ["Nothing kept matches the filter."]
        return ["No failures."]


class Results(EventList):
    """Results, newest first or sorted."""

    @property
    def listing(self) -> Listing:
        """The results."""
        return self._bus.state.results

    def title(self) -> str:
        """Return the title with the sort order, unless it is newest first, and the filter."""
        order = "" if self.listing.sort is Sort.NEWEST else f", {self.listing.sort}"
        return f"results{order}{self.filter_text}"

    def heads(self, width: int, _now: float) -> list[Line]:
        """Return the line of column titles."""
        return [column_titles(fit_columns(width), self.glyphs)]

    def row(self, entry: Entry, width: int, now: float) -> Line:
        """Return the cells of a result."""
        return result_row(entry, fit_columns(width + 2), now, self.glyphs)

    def empty(self) -> list[str]:
        """Return the text for an empty list: the reason why there are no results."""
        state = self._bus.state
        if self.filter_text and len(self.listing.ring):
            return ["", "Nothing kept matches the filter."]
        if state.connection.reason and not state.recording:
            return ["", *state.connection.reason.split("; "), "", "It is tried again until it works."]
        return ["", "Waiting for results."]
