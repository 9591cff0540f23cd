"""The two themes. Every text colour has a contrast of at least 4.5 to its background."""

from __future__ import annotations

from textual.theme import Theme

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
        "ink-dim": "#8b949e",
        "ink-strong": "#f0f3f6",
        "ink-bar": "#4fb3bf",
        "ink-empty": "#2f3943",
        "ink-string": "#a5d6a7",
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
        "ink-dim": "#59636e",
        "ink-strong": "#000000",
        "ink-bar": "#0b7285",
        "ink-empty": "#d5d1c8",
        "ink-string": "#2b6a30",
        "line": "#b9b4a8",
        "chosen": "#d6e4f5",
        "footer-key-foreground": "#7a4b00",
    },
)
