"""Text for the screen: glyphs, text styles, and numbers and times of a known width."""

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
    """One set of glyphs. `bar` and `spark` go from empty to full."""

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
        """Return `text` in characters that the terminal can show."""
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
    """Return the glyphs for this terminal: ASCII on the Linux console, and if the locale is not UTF-8."""
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    other = locale != "" and "utf8" not in locale.lower().replace("-", "")
    return ASCII if other or environ.get("TERM") == "linux" else UNICODE


class TextStyle(StrEnum):
    """The meaning of a piece of text; the theme defines its colour. A colour is never the only sign of a state."""

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


# A piece of a line, and a line. Widgets cut lines that are too wide.
Span = tuple[str, TextStyle]
Line = list[Span]


_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_SECOND_MS = 1_000
_HOUR_MS = 3_600_000
_KIB = 1024


def clock(at: float) -> str:
    """Return a wall-clock time (seconds) as local HH:MM:SS."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):  # a recording may hold any number
        return "--:--:--"


def span(seconds: float) -> str:
    """Return a short duration: 3s, 2m05s, 1h20m, 4d."""
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
    """Return milliseconds with a unit, in at most eight characters; negative if clocks differ."""
    if value is None:
        return "- ms"
    size = abs(value)
    if size < 10:  # noqa: PLR2004 - one more digit for small figures
        return f"{value:.1f} ms"
    if size < _SECOND_MS * 10:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if size < _SECOND_MS * 1000 else f"{value / _HOUR_MS:.1f} h"


def count(value: int) -> str:
    """Return a count with a space between groups: 12 345."""
    return f"{value:,}".replace(",", " ")


def rate(value: float) -> str:
    """Return a rate, in events a second."""
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"  # noqa: PLR2004 - one more digit for small figures


def percent(share: float | None) -> str:
    """Return a share in percent; 100 and 0 only if it is exactly that."""
    if share is None:
        return "-"
    return f"{share:.0%}" if share in {0, 1} else f"{min(max(share * 100, 0.1), 99.9):.1f}%"


def size(count_: int) -> str:
    """Return a size in bytes with a unit."""
    if count_ < _KIB:
        return f"{count_} B"
    return f"{count_ / _KIB:.1f} KiB" if count_ < _KIB * _KIB else f"{count_ / _KIB / _KIB:.1f} MiB"


def fit(text: str, width: int, glyphs: Glyphs) -> str:
    """Return `text` in exactly `width` cells: sanitized, cut with an ellipsis, padded."""
    # Most characters take at least one cell: twice the width is enough to examine.
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
    """Return the filled and the empty part of a bar of `width` cells."""
    steps = len(glyphs.bar) - 1
    filled = round(min(max(share, 0.0), 1.0) * width * steps)
    whole, part = divmod(filled, steps)
    full = glyphs.bar[-1] * whole + (glyphs.bar[part] if part else "")
    return full, glyphs.bar[0] * (width - len(full))


def spark(values: Sequence[float], glyphs: Glyphs) -> str:
    """Return a sparkline: the largest value at full height, every other positive value at least one step."""
    highest = max(values, default=0.0)
    steps = len(glyphs.spark) - 1
    return "".join(
        glyphs.spark[math.ceil(value / highest * steps)] if value > 0 and highest > 0 else glyphs.spark[0]
        for value in values
    )
