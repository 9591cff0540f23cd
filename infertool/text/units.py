"""Parses durations ("500ms") and capacities ("10000:5m") that a user typed."""

from __future__ import annotations

import re

from infertool.errors import UsageError

_FACTORS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")


def parse_duration(text: str, option: str = "") -> float:
    """Return the seconds in `text`: "500ms", "10s", "2m", "1h"; a number without unit means seconds.

    Raises `UsageError` that names `option`.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{option} {text!r} is not a duration".lstrip(), advice="write for example 500ms, 10s, 2m or 1h"
        )
    return float(match[1]) * _FACTORS[match[2] or "s"]


def parse_capacity(text: str) -> tuple[int, float]:
    """Return the number of entries and their lifetime in seconds from `text` ("10000:5m"). Raises `UsageError`."""
    count, colon, duration = text.partition(":")
    seconds = parse_duration(duration) if colon else 0.0
    if not count.isdecimal() or int(count) == 0 or seconds == 0:
        raise UsageError(f"{text!r} is no number of results and time to keep them", advice="write for example 10000:5m")
    return int(count), seconds
