"""What a piece of text on the screen is, for the theme to colour. A colour is never the only sign of anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of signs. `bar` and `spark` go from empty to full."""

    ascii: bool
    bar: str
    spark: str
    success: str
    failure: str
    firing: str
    other: str
    gap: str
    cursor: str
    up: str
    down: str
    paused: str
    live: str
    ellipsis: str
    thumb: str
    track: str

    def safe(self, text: str) -> str:
        """Return `text` in what the terminal can show."""
        return text.encode("ascii", "backslashreplace").decode() if self.ascii and not text.isascii() else text


UNICODE = Glyphs(
    ascii=False,
    bar=" ▏▎▍▌▋▊▉█",
    spark=" ▁▂▃▄▅▆▇█",
    success="✓",
    failure="✗",
    firing="▲",
    other="·",
    gap="┄",
    cursor="▸",
    up="●",
    down="○",
    paused="‖",
    live="▶",
    ellipsis="…",
    thumb="┃",
    track="│",
)
ASCII = Glyphs(
    ascii=True,
    bar=".#",
    spark=" .:-=+*#@",
    success="+",
    failure="x",
    firing="!",
    other=".",
    gap="-",
    cursor=">",
    up="*",
    down="o",
    paused="=",
    live=">",
    ellipsis="~",
    thumb="#",
    track="|",
)


def of_terminal(environ: Mapping[str, str]) -> Glyphs:
    """Return the signs for this terminal: ASCII on the Linux console, and where the locale names another encoding."""
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    other = locale != "" and "utf8" not in locale.lower().replace("-", "")
    return ASCII if other or environ.get("TERM") == "linux" else UNICODE


class TextStyle(StrEnum):
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
Span = tuple[str, TextStyle]
Line = list[Span]
