"""How fast to replay: at most so many a second, slowly at first, so that a mistake shows early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from infertool.errors import UsageError

RAMP_S = 10.0
# The ramp begins with this share of the rate.
_FIRST = 0.1
# Messages go in small groups, so many a second.
_GROUPS = 5


def parse_rate(text: str) -> float:
    """Return "50/s" or "50" as replays a second. Raises `UsageError`."""
    try:
        rate = float(text.strip().removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UsageError(f"--rate {text!r} is no rate", advice="write for example 50/s or 0.5/s")
    return rate


class Pace:
    """Spreads replays over time: from a tenth of `rate` (a second) to all of it within ten seconds.

    Time in which nothing could be sent (a lost connection) is not made up for.
    """

    def __init__(self, rate: float, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._stop = stop
        self._clock = clock
        self._began = clock()
        self._next = self._began

    def group(self) -> int:
        """Return how many to send at once now."""
        return max(1, int(self._now_rate() / _GROUPS))

    def wait(self, count: int) -> bool:
        """Wait until `count` more may go. Return False when stopped meanwhile."""
        start = max(self._next, self._clock())
        self._next = start + count / self._now_rate()
        return not self._stop.wait(start - self._clock())

    def _now_rate(self) -> float:
        share = _FIRST + (1 - _FIRST) * (self._clock() - self._began) / RAMP_S
        return self._rate * min(1.0, share)
