"""Wait times between attempts: full-jitter backoff, and fixed schedules for reconnects."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Keeps 2**exponent within a float; any cap is reached long before.
_LARGEST_EXPONENT = 62


@dataclass(frozen=True, slots=True)
class FullJitter:
    """Full-jitter exponential backoff: uniform in [0, min(cap, base * 2**(attempt-1))].

    Source: Amazon Builders' Library, "Timeouts, retries, and backoff with jitter". Times in seconds.
    """

    base_s: float
    cap_s: float

    def ceiling(self, attempt: int) -> float:
        """Return the maximum wait after failed attempt number `attempt` (1 is the first), in seconds."""
        return min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, _LARGEST_EXPONENT))

    def wait(self, attempt: int, rng: random.Random | None = None) -> float:
        """Return a random wait after failed attempt number `attempt`, in seconds."""
        uniform = rng.uniform if rng else random.uniform
        return uniform(0.0, self.ceiling(attempt))


_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """Wait after the first, second, ... failure, in seconds; the last one repeats.

    Up to 10 % is added at random, so that many clients of one server do not reconnect at the same instant.
    """

    waits_s: tuple[float, ...]

    def wait(self, failures: int) -> float:
        """Return the wait after failure number `failures` (1 is the first), in seconds."""
        wait = self.waits_s[min(failures, len(self.waits_s)) - 1]
        return wait * random.uniform(1.0, 1.0 + _JITTER)  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """How a socket reconnects. It delays its joins by `settle_s` seconds if the server was unreachable."""

    schedule: Schedule
    settle_s: float = 0.0


RECONNECT = Schedule((0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0))
VIEWER = Reconnecting(RECONNECT)
# A viewer tries at least every 1.1 s, so within 1.5 s after the server is back it has joined.
PUBLISHER = Reconnecting(Schedule((0.25, 0.5, 1.0, 2.0, 5.0)), settle_s=1.5)
REJOIN = Schedule((1.0, 2.0, 5.0, 10.0))
