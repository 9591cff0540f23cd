"""The one WebSocket frame that matters for speed, read at a glance: text, unmasked, whole, and below 64 KiB."""

from __future__ import annotations

_FINAL_TEXT = 0x81
_LONGEST_SHORT = 125
_TWO_BYTES = 126


def whole_texts(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the texts of such frames from `at` on, up to anything else, and where that begins."""
    texts: list[bytes] = []
    # A frame of less than 4 bytes at the very end is left to others: then no index below can be out of range.
    last = len(data) - 4
    while at <= last and data[at] == _FINAL_TEXT:
        size = data[at + 1]
        begin = at + 2
        if size == _TWO_BYTES:
            size = data[at + 2] << 8 | data[at + 3]
            begin = at + 4
        elif size > _LONGEST_SHORT:
            break
        end = begin + size
        if end > len(data):
            break
        texts.append(data[begin:end])
        at = end
    return texts, at
