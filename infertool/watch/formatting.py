"""Figures and times in words and signs, of a known width on the screen."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.cells import cell_len, get_character_cell_size, set_cell_size

from infertool.text.sanitize import clean


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


_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_SECOND_MS = 1_000
_HOUR_MS = 3_600_000
_KIB = 1024


def clock(at: float) -> str:
    """Return a wall-clock time (seconds) as local hours, minutes and seconds."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):  # a record may hold any number
        return "--:--:--"


def span(seconds: float) -> str:
    """Return a length of time in a few characters: 3s, 2m05s, 1h20m, 4d."""
    whole = int(seconds)
    if whole < 0:
        return f"-{span(-seconds)}"
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d"


def ms(value: float | None) -> str:
    """Return milliseconds in at most eight characters, with a unit; a minus sign shows clocks that disagree."""
    if value is None:
        return "- ms"
    size = abs(value)
    if size < 10:  # noqa: PLR2004 - one more digit for small figures
        return f"{value:.1f} ms"
    if size < _SECOND_MS * 10:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if size < _SECOND_MS * 1000 else f"{value / _HOUR_MS:.1f} h"


def count(value: int) -> str:
    """Return a count with thin groups: 12 345."""
    return f"{value:,}".replace(",", " ")


def rate(value: float) -> str:
    """Return events a second."""
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"  # noqa: PLR2004 - one more digit for small figures


def percent(share: float | None) -> str:
    """Return a share in percent; 100 and 0 only where it is exactly that."""
    if share is None:
        return "-"
    return f"{share:.0%}" if share in {0, 1} else f"{min(max(share * 100, 0.1), 99.9):.1f}%"


def size(count_: int) -> str:
    """Return a number of bytes."""
    if count_ < _KIB:
        return f"{count_} B"
    return f"{count_ / _KIB:.1f} KiB" if count_ < _KIB * _KIB else f"{count_ / _KIB / _KIB:.1f} MiB"


def fit(text: str, width: int, glyphs: Glyphs) -> str:
    """Return `text` in exactly `width` cells: clean, cut with an ellipsis, padded."""
    # Each character takes one cell at least, or none: twice the width is enough to look at.
    shown = glyphs.safe(clean(text[: 2 * width + 1]))
    if cell_len(shown) > width:
        return set_cell_size(shown, max(width - len(glyphs.ellipsis), 0)) + glyphs.ellipsis[:width]
    return set_cell_size(shown, width)


def take(text: str, width: int) -> tuple[str, str]:
    """Return the start of `text` that fits into `width` cells, and the rest."""
    if text.isascii():
        return text[:width], text[width:]
    used = 0
    for position, character in enumerate(text):
        used += get_character_cell_size(character)
        if used > width:
            return text[:position], text[position:]
    return text, ""


def bar(share: float, width: int, glyphs: Glyphs) -> tuple[str, str]:
    """Return the filled and the empty part of a bar, `width` cells together."""
    steps = len(glyphs.bar) - 1
    filled = round(min(max(share, 0.0), 1.0) * width * steps)
    whole, part = divmod(filled, steps)
    full = glyphs.bar[-1] * whole + (glyphs.bar[part] if part else "")
    return full, glyphs.bar[0] * (width - len(full))


def spark(values: Sequence[float], glyphs: Glyphs) -> str:
    """Return a line of columns, the largest at full height; what is not zero shows at least a trace."""
    highest = max(values, default=0.0)
    steps = len(glyphs.spark) - 1
    return "".join(
        glyphs.spark[math.ceil(value / highest * steps)] if value > 0 and highest > 0 else glyphs.spark[0]
        for value in values
    )
