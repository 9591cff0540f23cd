"""Things to do again later, on a thread of their own."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence

from infertool.consumer.event import FailedEvent
from infertool.net.backoff import Schedule
from infertool.phoenix.push import NOTHING_PENDING, Pending, PushResult


class RetryQueue:
    """Calls actions after a delay. Actions may block: that only delays the actions behind them."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="retries", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` in `delay_s` seconds, unless stopped before."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._order), action))
            self._changed.notify()

    def stop(self) -> None:
        """Drop what is waiting. An action under way is not interrupted."""
        with self._changed:
            self._stopped = True
            self._due.clear()
            self._changed.notify()

    def _run(self) -> None:
        while (action := self._next()) is not None:
            action()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._stopped:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_s)
            return None


# Waits between tries, in seconds: an answer costs nothing, a crash holds up everything else.
AFTER_AN_ANSWER = Schedule((1.0, 2.0, 5.0, 10.0, 30.0))
AFTER_A_CRASH = Schedule((300.0,))


class HeldAlerts:
    """Counts the tries, and tells of them. Thread-safe."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._tries: dict[FailedEvent, int] = {}
        self._since: dict[FailedEvent, float] = {}

    def hold(self, dead: FailedEvent, refused: PushResult) -> float:
        """Note that the minimal alert of `dead` was refused; return after how many seconds to try again."""
        with self._lock:
            tries = self._tries[dead] = self._tries.get(dead, 0) + 1
            self._since.setdefault(dead, time.monotonic())
            held = len(self._tries)
        wait_s = (AFTER_A_CRASH if refused.crashes else AFTER_AN_ANSWER).wait(tries)
        if tries == 1:
            self._warn(
                f"Phoenix does not take {refused.push}, not even with nothing but its id: {refused.rejection}; "
                f"its event is kept, and is no dead letter without an alert ({held} are kept so); "
                f"next try in {wait_s:.0f} s"
            )
        return wait_s

    def reported(self, dead: Sequence[FailedEvent]) -> None:
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
