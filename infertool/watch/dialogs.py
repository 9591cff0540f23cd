"""Dialogs: the filter bar, the confirmation, the help, and the notice on a terminal that is too small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from infertool.filters import expression
from infertool.filters.expression import Filter, FilterError
from infertool.text.sanitize import clean
from infertool.watch.bus import Bus
from infertool.watch.formatting import Glyphs, Line, TextStyle, count, percent, rate
from infertool.watch.keys import ACTIONS, shown
from infertool.watch.panes import StyledLines

_HINT = "enter keeps it, esc ends it; for example: prediction.confidence < 0.8"


class FilterBar(Vertical):
    """An input line for the filter, and a line for its error. Every change is checked at once."""

    DEFAULT_CSS = """
    FilterBar {
        height: 2; display: none; background: $panel; padding: 0 1;
        &.-open { display: block; }
        Horizontal { height: 1; }
        Label { width: 8; color: $primary; text-style: bold; }
        Input, Input:focus { border: none; height: 1; padding: 0; background: $panel; width: 1fr; }
        #message { color: $style-dim; height: 1; padding-left: 8; }
        &.-broken #message { color: $error; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "End filter")]

    class Changed(Message):
        """The filter changed; None shows all entries."""

        def __init__(self, compiled: Filter | None) -> None:
            super().__init__()
            self.compiled = compiled

    class Closed(Message):
        """The bar was closed."""

    def __init__(self, glyphs: Glyphs, fault_of: Callable[[Filter], str]) -> None:
        """`fault_of` returns why a filter fails on the current entries; empty if it works."""
        super().__init__(id="filter")
        self._glyphs = glyphs
        self._fault_of = fault_of

    def compose(self) -> ComposeResult:
        """Compose the two lines."""
        with Horizontal():
            yield Label("filter")
            yield Input(placeholder="a CEL expression", select_on_focus=False)
        yield Static(_HINT, id="message", markup=False)

    def on_mount(self) -> None:
        """Load the expression language in advance: it takes 0.25 s."""
        self.run_worker(lambda: expression.compile("true"), thread=True)

    def open(self) -> None:
        """Open the bar with the current filter."""
        self.add_class("-open")
        self.query_one(Input).focus()

    def end(self) -> None:
        """Remove the filter, and close the bar."""
        self.query_one(Input).value = ""
        self._close()

    def mark(self, reason: str) -> None:
        """Show the error `reason`, or a hint if it is empty."""
        self.set_class(bool(reason), "-broken")
        self.query_one("#message", Static).update(clean(f"{self._glyphs.failure} {reason}") if reason else _HINT)

    def action_cancel(self) -> None:
        """Remove the filter, and close the bar."""
        self.end()

    @on(Input.Changed)
    def _try(self, event: Input.Changed) -> None:
        event.stop()
        try:
            compiled = expression.compile(event.value) if event.value.strip() else None
        except FilterError as error:
            self.mark(f"column {error.column}: {error.reason}")
            return
        fault = self._fault_of(compiled) if compiled else ""
        self.mark(fault)
        if not fault:
            self.post_message(self.Changed(compiled))

    @on(Input.Submitted)
    def _keep(self, event: Input.Submitted) -> None:
        event.stop()
        if not self.has_class("-broken"):
            self._close()

    def _close(self) -> None:
        if self.has_class("-open"):
            self.remove_class("-open")
            self.post_message(self.Closed())


class Confirm(ModalScreen[bool]):
    """Asks before a command runs, and shows it. Returns True for yes. `yes` and `no` describe the answers."""

    DEFAULT_CSS = """
    Confirm {
        align: center middle;
        & > Vertical {
            width: 90%; max-width: 100; height: auto; padding: 1 2;
            background: $surface; border: round $warning; border-title-color: $warning;
        }
        .command { margin: 1 0; padding: 0 1; background: $panel; color: $style-strong; height: auto; }
        Horizontal { height: auto; margin-top: 1; }
        Button { margin-right: 2; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]

    def __init__(self, title: str, about: str, command: str, *, yes: str = "run it", no: str = "leave it") -> None:
        super().__init__()
        self._title = title
        self._about = about
        self._command = command
        self._yes = yes
        self._no = no

    def compose(self) -> ComposeResult:
        """Compose the dialog."""
        with Vertical() as box:
            box.border_title = self._title
            yield Static(self._about, markup=False)
            yield Static(f"$ {self._command}", classes="command", markup=False)
            with Horizontal():
                yield Button(f"n: {self._no}", id="no", compact=True)
                yield Button(f"y: {self._yes}", id="yes", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Close with the clicked answer."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001 - called by name from a binding
        """Close with the answer of a key."""
        self.dismiss(answer)


_SIGNS = (
    "In the lists: ✓ a result, ✗ a failure, ▲ an alert rule. The bar is the confidence from 0 to 1. model is the time "
    "the model took; end to end runs from the event's sent_at (else received_at) to this screen, and a minus sign "
    "there means that the clocks of two machines differ. The figures at the top are of the last minute; a column of "
    "the line beside the rate is five seconds."
)


class Help(ModalScreen[None]):
    """Lists the keys, and explains the glyphs."""

    DEFAULT_CSS = """
    Help {
        align: center middle;
        & > VerticalScroll {
            width: 92%; max-width: 110; height: auto; max-height: 92%; padding: 0 2;
            background: $surface; border: round $primary; border-title-color: $primary;
            border-subtitle-color: $style-dim;
        }
        .signs { color: $style-dim; margin-top: 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss", "Close")]

    def __init__(self, keys: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        """Compose the text."""
        with VerticalScroll() as box:
            box.border_title = "keys"
            box.border_subtitle = "esc closes"
            yield Static(self._table())
            yield Static(_SIGNS, classes="signs", markup=False)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for action in ACTIONS:
            table.add_row(Text(" ".join(map(shown, self._keys[action.name])), "bold"), action.meaning)
        return table


LEAST_WIDTH, LEAST_HEIGHT = 80, 24


class TooSmall(StyledLines):
    """Replaces all panes below 80x24 cells, with the most important figures."""

    DEFAULT_CSS = """
    TooSmall { width: 100%; height: 100%; display: none; background: $background; }
    """

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="too-small")
        self._glyphs = glyphs
        self._lines: list[Line] = []

    def show(self, bus: Bus) -> None:
        """Draw the current figures."""
        width, height = self.size
        recent = bus.state.recent(bus.now())
        totals = bus.state.totals
        self._lines = [
            [(f"{width}x{height} is too small,", TextStyle.WARN)],
            [(f"{LEAST_WIDTH}x{LEAST_HEIGHT} is needed", TextStyle.WARN)],
            [(f"{rate(recent.rate)}/s, {percent(recent.success)} ok", TextStyle.STRONG)],
            [(f"{count(totals.failures)} failed", TextStyle.FAIL if totals.failures else TextStyle.PLAIN)],
            [(f"{len(bus.state.rules)} alerts fire", TextStyle.WARN if bus.state.rules else TextStyle.PLAIN)],
        ]
        self.refresh()

    def line(self, y: int) -> tuple[Line, bool]:
        """Return a line of figures."""
        return (self._lines[y] if y < len(self._lines) else []), False
