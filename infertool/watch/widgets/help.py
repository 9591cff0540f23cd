"""The help screen: every key, as it is set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from infertool.watch.keys import ACTIONS, shown

_SIGNS = (
    "In the lists: ✓ a result, ✗ a failure, ▲ an alert rule. The bar is the confidence from 0 to 1. model is the time "
    "the model took; end to end runs from the event's sent_at (else received_at) to this screen, and a minus sign "
    "there means that the clocks of two machines differ. The figures at the top are of the last minute; a column of "
    "the line beside the rate is five seconds."
)


class Help(ModalScreen[None]):
    """Lists the keys and explains the signs."""

    DEFAULT_CSS = """
    Help {
        align: center middle;
        & > VerticalScroll {
            width: 92%; max-width: 110; height: auto; max-height: 92%; padding: 0 2;
            background: $surface; border: round $primary; border-title-color: $primary; border-subtitle-color: $ink-dim;
        }
        .signs { color: $ink-dim; margin-top: 1; }
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
