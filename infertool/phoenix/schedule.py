"""When to try again, as the official client does (phoenix.js, `reconnectAfterMs` and `rejoinAfterMs`)."""

from __future__ import annotations

import random
from dataclasses import dataclass

_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """Waits in seconds after the first, second, ... failure; the last one repeats.

    Up to a tenth is added at random, so that a fleet which lost one server does not come back in one instant.
    """

    waits_s: tuple[float, ...]

    def wait(self, failures: int) -> float:
        """Return the wait after failure number `failures` (1 is the first), in seconds."""
        wait = self.waits_s[min(failures, len(self.waits_s)) - 1]
        return wait * random.uniform(1.0, 1.0 + _JITTER)  # noqa: S311 - spreads load, guards nothing


RECONNECT = Schedule((0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0))
REJOIN = Schedule((1.0, 2.0, 5.0, 10.0))
