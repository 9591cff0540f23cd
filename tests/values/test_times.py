"""Times as text, also after many others."""

from __future__ import annotations

from datetime import UTC, datetime

from infertool.text.times import iso


def test_times_are_in_utc_to_the_millisecond_whichever_came_before() -> None:
    assert iso(1_764_000_000.5) == "2025-11-24T16:00:00.500Z"
    for _ in range(2):
        for number in range(100):
            seconds = 1_764_000_000 + number / 4
            assert datetime.fromisoformat(iso(seconds)) == datetime.fromtimestamp(seconds, UTC)
