"""What a piece of text on the screen is, for the theme to colour. A colour is never the only sign of anything."""

from __future__ import annotations

from enum import StrEnum


class Ink(StrEnum):
    """The kinds of text."""

    PLAIN = "plain"
    DIM = "dim"
    STRONG = "strong"
    TITLE = "title"
    OK = "ok"
    FAIL = "fail"
    WARN = "warn"
    ACCENT = "accent"
    SPARK = "spark"
    BAR = "bar"
    LOW = "low"
    EMPTY = "empty"
    KEY = "key"
    STRING = "string"
    NUMBER = "number"


# A piece of a line. Lines are lists of them; what is too wide is cut by the widget.
Span = tuple[str, Ink]
Line = list[Span]
