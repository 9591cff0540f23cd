"""Waiting times between attempts."""

from __future__ import annotations

import random
from dataclasses import dataclass

# 2**63 overflows no float, and by then any cap has long been reached.
_LARGEST_EXPONENT = 62


@dataclass(frozen=True, slots=True)
class FullJitter:
    """Full-jitter exponential backoff: uniform in [0, min(cap, base * 2**(attempt-1))].

    Source: Amazon Builders' Library, "Timeouts, retries, and backoff with jitter". Times in seconds.
    """

    base_s: float
    cap_s: float

    def ceiling(self, attempt: int) -> float:
        """Return the longest wait after failed attempt number `attempt` (1 is the first), in seconds."""
        return min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, _LARGEST_EXPONENT))

    def wait(self, attempt: int, rng: random.Random | None = None) -> float:
        """Return a random wait after failed attempt number `attempt`, in seconds."""
        uniform = rng.uniform if rng else random.uniform
        return uniform(0.0, self.ceiling(attempt))
