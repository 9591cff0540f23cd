"""Times as they are written, and the clocks they are by."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from infertool.deadletter.letter import DeadLetter

# Clocks that differ by less are as good as the same.
NOTABLE_S = 5.0


def iso(seconds: float) -> str:
    """Return a wall-clock time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def start(now: float, seen: Iterable[DeadLetter]) -> tuple[float, float]:
    """Return when a run begins by the clock of those who wrote the letters, and how far that is ahead of ours.

    A letter that is among those `seen` at the start and died later than now shows that their clock is ahead. When the
    run begins by theirs is not known then, so no letter died after it: infinity.
    """
    newest = max((letter.failed_at for letter in seen if letter.failed_at is not None), default=now)
    return (now, 0.0) if newest <= now else (math.inf, newest - now)
