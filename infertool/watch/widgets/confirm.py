"""Asking before something is done that cannot be taken back."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class Confirm(ModalScreen[bool]):
    """Shows the exact command; gives True only for a yes. `yes` and `no` say what the answers mean."""

    DEFAULT_CSS = """
    Confirm {
        align: center middle;
        & > Vertical {
            width: 90%; max-width: 100; height: auto; padding: 1 2;
            background: $surface; border: round $warning; border-title-color: $warning;
        }
        .command { margin: 1 0; padding: 0 1; background: $panel; color: $ink-strong; height: auto; }
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
        """Compose the question."""
        with Vertical() as box:
            box.border_title = self._title
            yield Static(self._about, markup=False)
            yield Static(f"$ {self._command}", classes="command", markup=False)
            with Horizontal():
                yield Button(f"n: {self._no}", id="no", compact=True)
                yield Button(f"y: {self._yes}", id="yes", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Take a click."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001 - called by name from a binding
        """Take a key."""
        self.dismiss(answer)
