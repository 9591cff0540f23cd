"""The colours of plots, on a light and on a dark ground, and plot.css with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LIGHT: Final[Mapping[str, str]] = {
    "ground": "#f5f6f8",
    "panel": "#ffffff",
    "line": "#e6e8ec",
    "shade": "#f1f2f6",
    "text": "#1b1e26",
    "quiet": "#636a78",
    "good": "#15803d",
    "warn": "#b45309",
    "bad": "#c02626",
    "c0": "#4f46e5",
    "c1": "#d9480f",
    "c2": "#0d9488",
    "c3": "#a21caf",
}
DARK: Final[Mapping[str, str]] = {
    "ground": "#0f1116",
    "panel": "#171a21",
    "line": "#2a2f3a",
    "shade": "#1e222b",
    "text": "#e7e9ee",
    "quiet": "#969eae",
    "good": "#4ade80",
    "warn": "#fbbf24",
    "bad": "#f87171",
    "c0": "#8b87ff",
    "c1": "#fb923c",
    "c2": "#2dd4bf",
    "c3": "#e879f9",
}
STYLES: Final = Path(__file__).with_name("plot.css")


def variables(colours: Mapping[str, str]) -> str:
    """Return colours as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def fixed(colours: Mapping[str, str]) -> str:
    """Return plot.css with `colours` in it, for who knows no CSS variables."""
    return re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], STYLES.read_text(encoding="utf-8"))
