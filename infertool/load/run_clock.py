"""When a run began, the second it is in, and the ids of its events, which tell when each was due."""

from __future__ import annotations

import math
import re
import secrets
import time
from dataclasses import dataclass

_PLACES = re.compile(r"-(\d{1,12})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class RunClock:
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


def new_run_id() -> str:
    """Return the beginning of the ids of a run's events."""
    return f"lg{secrets.token_hex(4)}"


def begin(delay_s: float, run_id: str | None = None) -> RunClock:
    """Return the epoch of a run that begins in `delay_s`."""
    return RunClock(run_id or new_run_id(), time.monotonic() + delay_s, time.time() + delay_s)


class Clock:
    """Tells the second of a run: 0 begins at the end of the warm-up; those of the warm-up are negative."""

    def __init__(self) -> None:
        self._zero = time.monotonic()

    def start(self, run_clock: RunClock, warmup_s: float) -> None:
        """Take the run's begin and the length of its warm-up."""
        self._zero = run_clock.mono + warmup_s

    def since_zero(self) -> float:
        """Return the seconds since the end of the warm-up."""
        return time.monotonic() - self._zero

    def second(self, at: float | None = None) -> int:
        """Return the second of `at` on the monotonic clock; by default of now."""
        return math.floor(self.since_zero() if at is None else at - self._zero)
