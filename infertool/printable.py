"""Text fit for a terminal. What comes from servers, events and models may hold what a terminal obeys."""

from __future__ import annotations

import re
from typing import TextIO

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
