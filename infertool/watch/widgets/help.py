"""The help screen: every key, as it is set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from infertool.watch.keys import ACTIONS, shown

_KEYS_WIDTH = 14
_SIGNS = """
In the lists: ✓ results, ✗ failures, ▲ alert rules; a bar is the confidence from 0 to 1, amber below 0.5.
model is the model's time, end to end runs from the event's sent_at (else received_at) to this screen; a minus
sign means that the clocks of two machines differ. Figures at the top are of the last minute, the line of columns of
the last minutes, five seconds each.
"""


class Help(ModalScreen[None]):
    """Lists the keys and explains the signs."""

    DEFAULT_CSS = """
    Help {
        align: center middle;
        & > VerticalScroll {
            width: 92%; max-width: 110; height: auto; max-height: 92%; padding: 0 2;
            background: $surface; border: round $primary; border-title-color: $primary; border-subtitle-color: $ink-dim;
        }
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
            yield Static(self._text())

    def _text(self) -> Text:
        text = Text()
        for action in ACTIONS:
            keys = " ".join(map(shown, self._keys[action.name]))
            text.append(f"{keys:<{_KEYS_WIDTH}}", "bold")
            text.append(f" {action.meaning}\n")
        text.append(_SIGNS, "dim")
        return text
