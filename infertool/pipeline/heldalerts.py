"""Failures whose alert Phoenix does not take, not even a minimal one: they wait, and are no dead letters meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from infertool.phoenix.push import NOTHING_PENDING, Pending, PushResult
from infertool.phoenix.schedule import Schedule
from infertool.pipeline.event import Dead

# Waits between tries, in seconds: an answer costs nothing, a crash holds up everything else.
AFTER_AN_ANSWER = Schedule((1.0, 2.0, 5.0, 10.0, 30.0))
AFTER_A_CRASH = Schedule((300.0,))


class HeldAlerts:
    """Counts the tries, and tells of them. Thread-safe."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._tries: dict[Dead, int] = {}
        self._since: dict[Dead, float] = {}

    def hold(self, dead: Dead, refused: PushResult) -> float:
        """Note that the minimal alert of `dead` was refused; return after how many seconds to try again."""
        with self._lock:
            tries = self._tries[dead] = self._tries.get(dead, 0) + 1
            self._since.setdefault(dead, time.monotonic())
            held = len(self._tries)
        wait_s = (AFTER_A_CRASH if refused.crashes else AFTER_AN_ANSWER).wait(tries)
        if tries == 1:
            self._warn(
                f"Phoenix does not take {refused.push}, not even with nothing but its id: {refused.refusal}; its event "
                f"is kept, and is no dead letter without an alert ({held} are kept so); next try in {wait_s:.0f} s"
            )
        return wait_s

    def reported(self, dead: Sequence[Dead]) -> None:
        """Forget those whose alerts arrived."""
        if self._tries:
            with self._lock:
                for each in dead:
                    self._tries.pop(each, None)
                    self._since.pop(each, None)

    def pending(self) -> Pending:
        """Return how many are kept, and for how long the oldest is."""
        with self._lock:
            if not self._since:
                return NOTHING_PENDING
            return Pending(len(self._since), time.monotonic() - min(self._since.values()))
