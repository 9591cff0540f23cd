"""The generator loops: an open model sends by the plan, a closed model when an earlier event is done."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from infertool.load.sender import Due, Sender
from infertool.load.tally import Tally

# Time after the plan's end in which waiting events are still sent. Enough after a hiccup, not for a plan too fast.
OVERTIME_S: Final = 60.0
# Maximum number of due events that wait. With more of them the plan cannot be met, and they are only counted.
MOST_WAITING: Final = 100_000
_LONGEST_WAIT_S: Final = 0.25
# Time between two calls of `take` beyond this is not time waited: the process was stopped. Seconds.
_AWAY_S: Final = 1.0
# Reasons for dropped events, as in the notes of a report.
AT_STOP: Final = "still waited when the run was stopped"
_AT_END: Final = f"still waited {OVERTIME_S:g} s after the plan's end"
_TOO_MANY: Final = f"became due while {MOST_WAITING:,} others waited"


class OpenGenerator:
    """Sends each event when it is due, independently of earlier events.

    Every due event is counted: the sender counts it as sent or unsent, the generator as dropped. `drops` counts the
    dropped events by reason.
    """

    def __init__(self, sender: Sender, tally: Tally, times: Iterator[Due], *, warmup_s: float, end_s: float) -> None:
        self.drops: Counter[str] = Counter()
        self._sender = sender
        self._tally = tally
        self._times = times
        self._warmup_s = warmup_s
        self._end_s = end_s
        self._stopped = threading.Event()
        self._backlog: deque[Due] = deque()
        self._next = next(times, None)
        self._overtime_ends = math.inf

    def stop(self) -> None:
        """End early, from any thread."""
        self._stopped.set()

    def run(self) -> None:
        """Send until the plan is over or `stop` is called."""
        while not self._stopped.is_set() and self.step():
            pass
        self._collect(self._sender.now())
        stopped = self._stopped.is_set()
        warm = sum(due < self._warmup_s for _, due in self._backlog)
        self._drop(warm, len(self._backlog) - warm, AT_STOP if stopped else _AT_END)

    def step(self) -> bool:
        """Wait for the next due event, or send a batch. Return True if there are more events."""
        now = self._sender.now()
        self._collect(now)
        if self._backlog:
            self._sender.send_some(self._backlog)
        elif self._next is None:
            return False
        else:
            self._stopped.wait(min(self._next[1] - now, _LONGEST_WAIT_S))
        # Counted from when the end is noticed: this process may not have run for long after the end.
        if now >= self._end_s:
            self._overtime_ends = min(self._overtime_ends, now + OVERTIME_S)
        return now < self._overtime_ends

    def _collect(self, now: float) -> None:
        """Move due events to the backlog."""
        planned: Counter[int] = Counter()
        beyond: Counter[bool] = Counter()
        while self._next and self._next[1] <= now:
            planned[math.floor(self._next[1] - self._warmup_s)] += 1
            if len(self._backlog) < MOST_WAITING:
                self._backlog.append(self._next)
            else:
                beyond[self._next[1] < self._warmup_s] += 1
            self._next = next(self._times, None)
        for second, count in planned.items():
            self._tally.add(warm=second < 0, second=second, planned=count)
        self._drop(beyond[True], beyond[False], _TOO_MANY)

    def _drop(self, warm: int, counted: int, why: str) -> None:
        """Count events that were due and are not sent."""
        if warm:
            self._tally.add(warm=True, dropped=warm)
        if counted:
            self._tally.add(dropped=counted)
            self.drops[why] += counted


class ClosedGenerator:
    """Keeps a number of events open: sends the next one when an earlier one is done. A slow consumer gets fewer."""

    def __init__(
        self, sender: Sender, tally: Tally, *, slots: Slots, warmup_s: float, end_s: float, count: float
    ) -> None:
        self._sender = sender
        self._tally = tally
        self.drops: Counter[str] = Counter()
        self._slots = slots
        self._warmup_s = warmup_s
        self._end_s = end_s
        self._count = count
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End early, from any thread."""
        self._stopped.set()

    def run(self) -> None:
        """Send until the time or the count is reached, or `stop` is called."""
        counted = 0
        self._stopped.wait(-self._sender.now())
        for number in itertools.count():
            while not self._slots.take(_LONGEST_WAIT_S) and not self._over(counted):
                pass
            if self._over(counted):
                return
            due = round(max(self._sender.now(), 0.0), 6)
            warm = due < self._warmup_s
            counted += not warm
            self._tally.add(warm=warm, planned=1)
            backlog = deque([(number, due)])
            while backlog and not self._stopped.is_set():
                self._sender.send_some(backlog)
            self._tally.add(warm=warm, dropped=len(backlog))
            if backlog and not warm:
                self.drops[AT_STOP] += 1

    def _over(self, counted: int) -> bool:
        return self._stopped.is_set() or counted >= self._count or self._sender.now() >= self._end_s


class Slots:
    """Slots of open events in a closed model. Thread-safe. After `patience_s` a slot is freed: its event is lost.

    Time in which `take` was not called, for instance while the process was stopped, does not count as waited.
    """

    def __init__(self, size: int, patience_s: float) -> None:
        self._free = size
        self._patience_s = patience_s
        self._asked = time.monotonic()
        self._away_s = 0.0
        self._taken: deque[float] = deque()
        self._changed = threading.Condition()

    def take(self, timeout_s: float) -> bool:
        """Take a slot, waiting up to `timeout_s`. Return True if one was taken."""
        with self._changed:
            now = time.monotonic()
            self._away_s += max(now - self._asked - _AWAY_S, 0.0)
            if self._taken and now - self._away_s - self._taken[0] > self._patience_s:
                self._release()
            found = self._changed.wait_for(lambda: self._free > 0, timeout_s)
            self._asked = time.monotonic()
            if found:
                self._free -= 1
                self._taken.append(self._asked - self._away_s)
            return found

    def release(self, count: int = 1) -> None:
        """Free `count` slots, whose events are done."""
        with self._changed:
            for _ in range(min(count, len(self._taken))):
                self._release()
            self._changed.notify()

    def _release(self) -> None:
        # The oldest, whichever event is done: only the number of open events matters.
        self._taken.popleft()
        self._free += 1
