"""Measured values as people read them."""

from __future__ import annotations

from typing import Final

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_STEP: Final = 1024


def duration(seconds: float) -> str:
    """Return a time: 0.42 ms, 3.1 s, 12 min, 3.5 h, 89 days."""
    size = abs(seconds)
    if size < 1:
        return f"{seconds * 1000:.3g} ms"
    if size < 2 * _MINUTE:
        return f"{seconds:.3g} s"
    if size < 2 * _HOUR:
        return f"{seconds / _MINUTE:.3g} min"
    return f"{seconds / _HOUR:.3g} h" if size < 2 * _DAY else f"{seconds / _DAY:.0f} days"


def size(count: float) -> str:
    """Return a number of bytes: 512 B, 3.2 MiB, 70 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _STEP:
            return f"{count:.3g} {unit}"
        count /= _STEP
    return f"{count:.3g} TiB"


def number(count: int, one: str) -> str:
    """Return a number of things: 1 message, 2 messages."""
    return f"{count} {one}{'' if count == 1 else 's'}"
