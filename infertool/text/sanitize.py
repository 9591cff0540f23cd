"""Makes text safe to print, and aligns it in terminal cells.

A character may take no cell, one or two, so `len`, `ljust` and `:<10` do not align columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

_SURROGATES = re.compile("[\ud800-\udfff]")


# UTF-16 halves that surrogateescape did not make: they have no UTF-8 form.
_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def wire_bytes(text: str) -> bytes:
    """Return a text as UTF-8. Bytes that were none come out as they came (surrogateescape); what has none is U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _LONE_SURROGATES.sub("\ufffd", text).encode("utf-8", "surrogateescape")


def clean(text: str) -> str:
    """Return `text` with escapes for invisible characters: controls (C0, C1, bidirectional), line separators."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def clean_json(line: str) -> str:
    """Return the same JSON, with JSON escapes for the characters that `clean` escapes."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() or char == "\t" else _json_escape(char) for char in line)


def printable(text: str) -> str:
    """Return `text` that UTF-8 can encode: each surrogate (also an undecodable byte) becomes U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def encodable(value: Any) -> Any:
    """Return what JSON is made of (dicts, lists, texts, others) with texts that are `printable`."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {encodable(key): encodable(each) for key, each in value.items()}
        case list() | tuple():
            return [encodable(each) for each in value]
    return value


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if `stream` is an open terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def _json_escape(char: str) -> str:
    import json  # noqa: PLC0415  (rarely needed)

    return json.dumps(char)[1:-1]


GAP = "  "


def _cells(text: str) -> int:
    from rich.cells import cell_len  # noqa: PLC0415  (slow to import, and most commands align nothing)

    return cell_len(text)


def left(text: str, width: int) -> str:
    """Return `text` left-aligned in `width` cells; longer text is unchanged."""
    return text + " " * (width - _cells(text))


def right(text: str, width: int) -> str:
    """Return `text` right-aligned in `width` cells; longer text is unchanged."""
    return " " * (width - _cells(text)) + text


def widest(texts: Iterable[str]) -> int:
    """Return the width of the widest of `texts`, in cells."""
    return max(map(_cells, texts), default=0)


def aligned(rows: Sequence[Sequence[str]], *, rights: Sequence[bool] = ()) -> list[str]:
    """Return rows as lines with aligned columns. `rights` is True for each right-aligned column."""
    widths = [widest(column) for column in zip(*rows, strict=True)]
    at_right = [*rights, *[False] * (len(widths) - len(rights))]
    return [
        GAP.join(
            right(cell, width) if is_right else left(cell, width)
            for cell, width, is_right in zip(row, widths, at_right, strict=True)
        ).rstrip()
        for row in rows
    ]
