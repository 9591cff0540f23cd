"""Typing a filter: each change is tried at once, and what cannot work is marked where it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Label, Static

from infertool.filters import expression
from infertool.filters.expression import Filter, FilterError
from infertool.text.sanitize import clean
from infertool.watch.style import Glyphs

_HINT = "enter keeps it, esc ends it; for example: prediction.confidence < 0.8"


class FilterBar(Vertical):
    """One line to type into, and one that says what is wrong with it."""

    DEFAULT_CSS = """
    FilterBar {
        height: 2; display: none; background: $panel; padding: 0 1;
        &.-open { display: block; }
        Horizontal { height: 1; }
        Label { width: 8; color: $primary; text-style: bold; }
        Input, Input:focus { border: none; height: 1; padding: 0; background: $panel; width: 1fr; }
        #said { color: $ink-dim; height: 1; padding-left: 8; }
        &.-broken #said { color: $error; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "End filter")]

    class Changed(Message):
        """The filter is another one; None shows everything."""

        def __init__(self, compiled: Filter | None) -> None:
            super().__init__()
            self.compiled = compiled

    class Closed(Message):
        """Typing has ended."""

    def __init__(self, glyphs: Glyphs, fault_of: Callable[[Filter], str]) -> None:
        """`fault_of` says why a filter cannot work on what there is; empty when it can."""
        super().__init__(id="filter")
        self._glyphs = glyphs
        self._fault_of = fault_of

    def compose(self) -> ComposeResult:
        """Compose the two lines."""
        with Horizontal():
            yield Label("filter")
            yield Input(placeholder="a CEL expression", select_on_focus=False)
        yield Static(_HINT, id="said", markup=False)

    def on_mount(self) -> None:
        """Load the expression language before it is needed: it takes a quarter of a second."""
        self.run_worker(lambda: expression.compile("true"), thread=True)

    def open(self) -> None:
        """Begin to type, with what is there."""
        self.add_class("-open")
        self.query_one(Input).focus()

    def end(self) -> None:
        """End the filter, and typing it."""
        self.query_one(Input).value = ""
        self._close()

    def mark(self, reason: str) -> None:
        """Say what is wrong, or, when nothing is, how to go on."""
        self.set_class(bool(reason), "-broken")
        self.query_one("#said", Static).update(clean(f"{self._glyphs.failure} {reason}") if reason else _HINT)

    def action_cancel(self) -> None:
        """End the filter."""
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
