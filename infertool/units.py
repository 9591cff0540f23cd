"""Durations as people type them."""

from __future__ import annotations

import re

from infertool.errors import UsageError

_FACTORS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")


def parse_duration(text: str) -> float:
    """Return `text` ("500ms", "10s", "2m", "1h"; a bare number is seconds) in seconds. Raises `UsageError`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a duration", advice="write for example 500ms, 10s, 2m or 1h")
    return float(match[1]) * _FACTORS[match[2] or "s"]
