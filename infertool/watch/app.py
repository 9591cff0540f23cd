"""The Textual application and its themes. It takes new events and redraws 15 times a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.theme import Theme

from infertool.text.sanitize import clean
from infertool.watch.bus import Bus
from infertool.watch.formatting import Glyphs
from infertool.watch.keys import ACTIONS
from infertool.watch.screen import Main

DARK = Theme(
    name="dark",
    dark=True,
    primary="#6cb6ff",
    secondary="#57c7c1",
    accent="#e0af68",
    foreground="#c9d1d9",
    background="#0f1419",
    surface="#141a21",
    panel="#1b232c",
    success="#6bc46d",
    warning="#e0af68",
    error="#ff7b72",
    variables={
        "style-dim": "#8b949e",
        "style-strong": "#f0f3f6",
        "style-bar": "#4fb3bf",
        "style-empty": "#2f3943",
        "style-string": "#a5d6a7",
        "line": "#33404d",
        "chosen": "#23364a",
        "footer-key-foreground": "#e0af68",
    },
)
LIGHT = Theme(
    name="light",
    dark=False,
    primary="#0550ae",
    secondary="#0b6e75",
    accent="#7a4b00",
    foreground="#24292f",
    background="#fbfaf7",
    surface="#f3f1ec",
    panel="#e9e6df",
    success="#176f2c",
    warning="#7a4b00",
    error="#b3261e",
    variables={
        "style-dim": "#59636e",
        "style-strong": "#000000",
        "style-bar": "#0b7285",
        "style-empty": "#d5d1c8",
        "style-string": "#2b6a30",
        "line": "#b9b4a8",
        "chosen": "#d6e4f5",
        "footer-key-foreground": "#7a4b00",
    },
)


_PER_SECOND = 15
# Ticks between two updates of the header's figures, and between two sorts.
_FIGURES_EVERY = 4
_SORT_EVERY = 8


class WatchApp(App[None], inherit_bindings=False):
    """The application. `keys` holds the keys of every action; exports go to `folder`."""

    TITLE = "infertool watch"
    COMMAND_PALETTE_BINDING = ""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "quit", show=False, priority=True)]

    def __init__(
        self, buses: Sequence[Bus], *, keys: Mapping[str, tuple[str, ...]], theme: str, glyphs: Glyphs, folder: Path
    ) -> None:
        super().__init__()
        self._buses = buses
        self._main = Main(buses, keys=keys, glyphs=glyphs, folder=folder)
        self._ticks = 0
        self._ending = False
        self._notes: set[str] = set()
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = theme
        self.set_keymap({name: ",".join(chosen) for name, chosen in keys.items()})

    def get_default_screen(self) -> Screen[None]:
        """Return the only screen."""
        return self._main

    def get_key_display(self, binding: Binding) -> str:
        """Return a key's name for the footer, in characters that every terminal has."""
        return super().get_key_display(binding).replace("⏎", "enter")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:  # noqa: ARG002 - Textual's signature
        """Yield every action for the command palette."""
        for action in ACTIONS:
            if action.name != "palette":
                title = action.name.replace("_", " ").capitalize()
                yield SystemCommand(title, action.meaning, getattr(self._main, f"action_{action.name}"))

    def on_mount(self) -> None:
        """Start the buses and the timer."""
        for bus in self._buses:
            bus.start()
        self.set_interval(1 / _PER_SECOND, self.tick)

    def end(self) -> None:
        """Exit at the next tick. For signal handlers."""
        self._ending = True

    async def action_quit(self) -> None:
        """Quit, as the key does."""
        self._main.action_quit()

    def tick(self) -> None:
        """Take new events, and draw changes."""
        if self._ending:
            self.exit()
        self._ticks += 1
        for bus in self._buses:
            bus.drain()
            bus.state.work()
            self._show_note(bus.state.note)
        if self._ticks % _SORT_EVERY == 0:
            self._main.resort()
        self._main.redraw(figures=self._ticks % _FIGURES_EVERY == 0)

    def _show_note(self, note: str) -> None:
        if note and note not in self._notes:
            self._notes.add(note)
            self.notify(clean(note), severity="warning", markup=False)
