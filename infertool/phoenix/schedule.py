"""When to try again. Rejoins and the first reconnects follow the official client (phoenix.js, `reconnectAfterMs`).

Viewers are back before publishers: what is broadcast before a viewer has joined again is missed by it.
"""

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


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """How a socket comes back. `settle_s` is how long it waits with its joins when the server had been away."""

    schedule: Schedule
    settle_s: float = 0.0


RECONNECT = Schedule((0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0))
VIEWER = Reconnecting(RECONNECT)
# A viewer tries at least every 1.1 s, so 1.5 s after the server is back it has joined.
PUBLISHER = Reconnecting(Schedule((0.25, 0.5, 1.0, 2.0, 5.0)), settle_s=1.5)
REJOIN = Schedule((1.0, 2.0, 5.0, 10.0))
