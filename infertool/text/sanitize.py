"""Text in terminal cells: a character may take one, two or none, so `len`, `ljust` and `:<10` do not align columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.cells import cell_len

_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Return `text` with escapes for what is not seen: controls (C1, too), bidirectional ones, line separators."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def clean_json(line: str) -> str:
    """Return the same JSON, with what `clean` escapes as JSON's own escapes."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() or char == "\t" else _json_escape(char) for char in line)


def printable(text: str) -> str:
    """Return `text` fit for UTF-8 and JSON: bytes that were none, and other surrogates, become U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if people read `stream`. A closed one is none."""
    return stream is not None and not stream.closed and stream.isatty()


def _json_escape(char: str) -> str:
    import json  # noqa: PLC0415  (rarely needed)

    return json.dumps(char)[1:-1]


GAP = "  "


def left(text: str, width: int) -> str:
    """Return `text` at the left of `width` cells; longer text stays as it is."""
    return text + " " * (width - cell_len(text))


def right(text: str, width: int) -> str:
    """Return `text` at the right of `width` cells; longer text stays as it is."""
    return " " * (width - cell_len(text)) + text


def widest(texts: Iterable[str]) -> int:
    """Return the cells that the widest of `texts` takes."""
    return max(map(cell_len, texts), default=0)


def aligned(rows: Sequence[Sequence[str]], *, rights: Sequence[bool] = ()) -> list[str]:
    """Return rows as lines with columns of equal width. `rights` says which columns stand at their right edge."""
    widths = [widest(column) for column in zip(*rows, strict=True)]
    at_right = [*rights, *[False] * (len(widths) - len(rights))]
    return [
        GAP.join(
            right(cell, width) if is_right else left(cell, width)
            for cell, width, is_right in zip(row, widths, at_right, strict=True)
        ).rstrip()
        for row in rows
    ]
