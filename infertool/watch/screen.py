"""The screen: layout of the panes, and the actions of the keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Footer

from infertool.errors import InfertoolError
from infertool.filters.expression import Filter
from infertool.telemetry.trace_context import trace_id_of
from infertool.text.sanitize import clean
from infertool.watch import replay
from infertool.watch.bus import Bus
from infertool.watch.dialogs import LEAST_HEIGHT, LEAST_WIDTH, Confirm, FilterBar, Help, TooSmall
from infertool.watch.entry import Entry, Kind, json_line, write_entries
from infertool.watch.eventlist import Alerts, EventList, Results
from infertool.watch.formatting import Glyphs
from infertool.watch.keys import ACTIONS
from infertool.watch.panes import Detail, HeaderBar, Pane

# Minimum widths to show the detail beside the lists, and the lists side by side. Cells.
_BESIDE_WIDTH = 120
_WIDE_WIDTH = 160
# Maximum size of a copy: many terminals' clipboards take no more. Bytes.
_MOST_COPIED = 70_000
_TOAST_S = 15.0


def _has_browser() -> bool:
    """Return True if a browser has a window of its own: one in this terminal would take the view's place."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")))


class Main(Screen[None], inherit_bindings=False):
    """The screen of one of the buses."""

    AUTO_FOCUS = "#results"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(",".join(each.keys), each.name, each.label or each.meaning, show=bool(each.label), id=each.name)
        for each in ACTIONS
    ]
    DEFAULT_CSS = """
    Main {
        layout: vertical; background: $background;
        #body { layout: horizontal; height: 1fr; }
        #lists { layout: vertical; width: 1fr; }
        #results { height: 1fr; }
        #alerts { height: 30%; min-height: 6; }
        #detail { display: none; width: 45%; }
        &.-wide #lists { layout: horizontal; }
        &.-wide #results { width: 3fr; }
        &.-wide #alerts { width: 2fr; height: 1fr; }
        &.-detail #detail { display: block; }
        &.-detail.-narrow #lists { display: none; }
        &.-detail.-narrow #detail { width: 1fr; }
        &.-small > * { display: none; }
        &.-small #too-small { display: block; }
    }
    """

    def __init__(
        self, buses: Sequence[Bus], *, keys: Mapping[str, tuple[str, ...]], glyphs: Glyphs, folder: Path
    ) -> None:
        super().__init__()
        self._buses = buses
        self._bus = buses[0]
        self._keys = keys
        self._glyphs = glyphs
        self._folder = folder
        self._header = HeaderBar(buses, glyphs)
        self._results = Results(self._bus, glyphs, id="results")
        self._alerts = Alerts(self._bus, glyphs, id="alerts")
        self._detail = Detail(glyphs)
        # The list that had the focus last: it gets it back after the detail, the filter, and a small terminal.
        self._last: EventList = self._results
        self._replays: list[replay.Replay] = []
        self._leaving: Confirm | None = None
        self._filter_bar = FilterBar(glyphs, self._fault_of)
        self._too_small = TooSmall(glyphs)

    def compose(self) -> ComposeResult:
        """Compose the panes."""
        yield self._header
        with Container(id="body"):
            with Container(id="lists"):
                yield self._results
                yield self._alerts
            yield self._detail
        yield self._filter_bar
        yield Footer(show_command_palette=False, compact=True)
        yield self._too_small

    # Drawing

    def redraw(self, *, figures: bool = True) -> None:
        """Draw changes; with `figures`, also the header."""
        self._lay_out()
        if self.has_class("-small"):
            self._too_small.show(self._bus)
            return
        if figures:
            self._header.show(self._bus)
        for each in self._lists():
            each.show(self._bus)
            if each.listing.filter_error:
                self._filter_bar.mark(each.listing.filter_error)
        if self.has_class("-detail"):
            self._detail.show(self._bus.now())

    def resort(self) -> None:
        """Sort again if new entries changed the order."""
        for each in self._lists():
            each.listing.resort()

    # Events of the widgets

    @on(FilterBar.Changed)
    def _filter(self, event: FilterBar.Changed) -> None:
        text = f", filter: {event.compiled.expression}" if event.compiled else ""
        for each in self._lists():
            each.filter_text = text
        for bus in self._buses:
            bus.state.results.set_filter(event.compiled)
            bus.state.alerts.set_filter(event.compiled)
        self.redraw()

    @on(FilterBar.Closed)
    def _end_typing(self) -> None:
        self._last.focus()

    @on(EventList.Opened)
    def _open(self) -> None:
        self._show_detail(self._selected())

    # Actions

    def action_pause(self) -> None:
        """Pause both lists, or resume them."""
        paused = self._bus.state.results.paused
        for listing in (self._bus.state.results, self._bus.state.alerts):
            listing.resume() if paused else listing.pause()
        self.redraw()

    def action_filter(self) -> None:
        """Open the filter bar."""
        self._list()
        self._filter_bar.open()

    def action_detail(self) -> None:
        """Show the selected event in full, or close it."""
        if self.has_class("-detail"):
            self._close_detail()
        else:
            self._show_detail(self._selected())

    def action_follow(self) -> None:
        """Follow the first row, or stop following."""
        listing = self._list().listing
        listing.set_follow(not listing.follow)
        self.redraw()

    def action_sort(self) -> None:
        """Switch to the next sort order of the results."""
        self._bus.state.results.sort_next()
        self.redraw()

    def action_next_pane(self) -> None:
        """Focus the next pane."""
        self.focus_next(Pane)
        self.redraw()

    def action_previous_pane(self) -> None:
        """Focus the previous pane."""
        self.focus_previous(Pane)
        self.redraw()

    def action_copy(self) -> None:
        """Copy the selected event to the clipboard."""
        entry = self._selected()
        if entry is None or entry.kind is Kind.GAP:
            self._say("Select an event first.", severity="warning")
        elif len(entry.body) > _MOST_COPIED:
            self._say("It is too large for the terminal's clipboard; e exports it to a file.", severity="warning")
        else:
            self.app.copy_to_clipboard(json_line(entry).decode())
            self._say("Copied as JSON.")

    def action_trace(self) -> None:
        """Open the page of the selected event's trace; copy its address where there is no browser."""
        entry = self._selected()
        trace_id = trace_id_of(entry.payload) if entry else ""
        if not self._bus.trace_url:
            self._say("Set telemetry.trace_url to open traces.", severity="warning")
        elif not trace_id:
            self._say("Select an event with a trace first.", severity="warning")
        else:
            url = self._bus.trace_url.replace("{trace_id}", trace_id)
            if _has_browser():
                self.run_worker(lambda: self.app.open_url(url), thread=True)
                self._say(f"Opened {url}")
            else:
                self.app.copy_to_clipboard(url)
                self._say(f"There is no browser here. Copied {url}")

    def action_export(self) -> None:
        """Write the list to a file."""
        try:
            path, number = write_entries(self._list().listing.all_rows(), self._folder, self._bus.now())
        except OSError as error:
            self._say(f"It cannot be written: {error.strerror}", severity="error")
        else:
            self._say(f"{number} events written to {path}")

    def action_replay(self) -> None:
        """Replay the dead letter of the selected failure, after a confirmation."""
        entry = self._selected()
        if entry is None or entry.kind is not Kind.FAILURE or not entry.event_id:
            self._say("Select a failure first: tab goes to their list.", severity="warning")
            return
        self._replay(entry)

    @work(group="replay")
    async def _replay(self, entry: Entry) -> None:
        arguments = replay.command(entry.whole_event_id, self._bus.options)
        about = "This sends its dead letter back to the queue it came from:"
        question = Confirm("replay", f"{clean(entry.name)}: {clean(entry.label)}\n\n{about}", replay.shown(arguments))
        if not await self.app.push_screen_wait(question):
            return
        try:
            running = replay.Replay(arguments)
        except InfertoolError as error:
            self._say(str(error), severity="error")
            return
        self._replays.append(running)
        self._say("The replay runs.")
        done, last_line = await running.follow(self._say)
        self._replays.remove(running)
        self._say(last_line, severity="information" if done else "error")

    def action_next_bus(self) -> None:
        """Show the next bus."""
        position = self._buses.index(self._bus)
        self._bus = self._buses[(position + 1) % len(self._buses)]
        self._close_detail()

    def action_theme(self) -> None:
        """Switch between the dark and the light theme."""
        self.app.theme = "light" if self.app.theme == "dark" else "dark"

    def action_palette(self) -> None:
        """Open the command palette."""
        self.app.action_command_palette()

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(Help(self._keys))

    def action_quit(self) -> None:
        """Quit; ask first if a replay runs. The second time, quit at once."""
        running = [each for each in self._replays if each.is_running()]
        if not running or self._leaving:
            self.app.exit()
        else:
            self._ask_to_leave(running)

    @work(group="leave")
    async def _ask_to_leave(self, running: Sequence[replay.Replay]) -> None:
        count = "A replay still runs" if len(running) == 1 else f"{len(running)} replays still run"
        about = f"{count}. To leave ends it after its present transaction; what it staged goes back."
        self._leaving = Confirm("leave", about, running[0].text, yes="end it and leave", no="stay")
        leave = await self.app.push_screen_wait(self._leaving)
        self._leaving = None
        if leave:
            for each in running:
                each.stop()
            self.app.exit()

    def action_up(self) -> None:
        """Move one row up."""
        self._move(-1)

    def action_down(self) -> None:
        """Move one row down."""
        self._move(1)

    def action_page_up(self) -> None:
        """Move one page up."""
        self._move(-self._pane().page())

    def action_page_down(self) -> None:
        """Move one page down."""
        self._move(self._pane().page())

    def action_first(self) -> None:
        """Move to the first row."""
        self._move(-self._pane().count())

    def action_last(self) -> None:
        """Move to the last row."""
        self._move(self._pane().count())

    def action_back(self) -> None:
        """Close the detail, else the filter."""
        if self.has_class("-detail"):
            self._close_detail()
        else:
            self._filter_bar.end()

    # Internals

    def _lay_out(self) -> None:
        """Choose the layout for the current size. At each redraw, since a resize may be followed by another."""
        width, height = self.app.size
        self.set_class(width < LEAST_WIDTH or height < LEAST_HEIGHT, "-small")
        self.set_class(width < _BESIDE_WIDTH, "-narrow")
        self.set_class(width >= _WIDE_WIDTH and not self.has_class("-detail"), "-wide")
        self._list()
        if self.focused is None and self.is_current and not self.has_class("-small"):
            self._last.focus()

    def _fault_of(self, compiled: Filter) -> str:
        return next(filter(None, (each.listing.fault_of(compiled) for each in self._lists())), "")

    def _lists(self) -> tuple[EventList, EventList]:
        return self._results, self._alerts

    def _pane(self) -> Pane:
        return self.focused if isinstance(self.focused, Pane) else self._last

    def _list(self) -> EventList:
        """Return the list with the focus, or the one that had it last."""
        if isinstance(self.focused, EventList):
            self._last = self.focused
        return self._last

    def _selected(self) -> Entry | None:
        pane = self._pane()
        return pane.entry if isinstance(pane, Detail) else self._list().listing.selected()

    def _move(self, rows: int) -> None:
        pane = self._pane()
        pane.move(rows)
        if isinstance(pane, EventList):
            self._detail.entry = self._selected()
        self.redraw(figures=False)

    def _show_detail(self, entry: Entry | None) -> None:
        self._list().listing.set_follow(False)
        self._detail.entry = entry
        self.add_class("-detail")
        if self.has_class("-narrow"):
            self._detail.focus()
        self.redraw()

    def _close_detail(self) -> None:
        if self._detail.has_focus:
            self._last.focus()
        self.remove_class("-detail")
        self.redraw()

    def _say(self, text: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        self.notify(clean(text), severity=severity, timeout=_TOAST_S, markup=False)
