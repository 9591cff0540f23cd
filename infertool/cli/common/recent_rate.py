"""The rate of a count over its last seconds, for the progress of a command."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

# Seconds.
SPAN_S: Final = 10.0
_SAMPLE_S: Final = 1.0


class RecentRate:
    """Computes how fast a count has grown in the last `SPAN_S` seconds, from 0 at its start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples = deque([(clock(), 0)])

    def of(self, count: int) -> float:
        """Take the count as it is now; return its growth a second."""
        now = self._clock()
        # The first sample is the newest one that is at least the span old.
        while len(self._samples) > 1 and now - self._samples[1][0] >= SPAN_S:
            self._samples.popleft()
        if now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, count))
        began, before = self._samples[0]
        return max(count - before, 0) / (now - began) if now > began else 0.0
