"""Suggestions for misspelt names, for error texts."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the valid name closest to `name`, ignoring case; "" if none is close."""
    from difflib import get_close_matches  # noqa: PLC0415 - needed in errors only

    by_lower = {candidate.lower(): candidate for candidate in valid}
    matches = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else ""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return `did you mean 'X'?` for the closest valid name; "" if none is close."""
    match = nearest(name, valid)
    return f"did you mean {match!r}?" if match else ""
