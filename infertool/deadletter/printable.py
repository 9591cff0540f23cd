"""Text of a message, fit for JSON."""

from __future__ import annotations

import re

_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` with bytes that were not UTF-8, and other surrogates, as U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
