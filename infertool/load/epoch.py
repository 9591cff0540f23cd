"""When a run began, and the ids of its events, which tell when each was due."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass

_PLACES = re.compile(r"-(\d{1,12})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Epoch:
    """The begin on the monotonic clock, which all processes of a machine share, and on the wall clock, in seconds.

    `run_id` belongs to one run only, also among runs of one seed: a result of an earlier run must not count.
    """

    run_id: str
    mono: float
    wall: float

    def event_id(self, number: int, due: float) -> str:
        """Return the id of event `number`, due so many seconds, in whole microseconds, after the begin."""
        return f"{self.run_id}-{number}-{round(due * 1e6)}"

    def read(self, event_id: object) -> tuple[int, float] | None:
        """Return the number and the due time that an id of this run tells; None for any other."""
        if not isinstance(event_id, str) or not event_id.startswith(self.run_id):
            return None
        match = _PLACES.fullmatch(event_id, len(self.run_id))
        return match and (int(match[1]), int(match[2]) / 1e6)


def begin(delay_s: float) -> Epoch:
    """Return the epoch of a run that begins in `delay_s`."""
    return Epoch(f"lg{secrets.token_hex(4)}", time.monotonic() + delay_s, time.time() + delay_s)
