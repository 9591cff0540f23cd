"""Between the threads of a source and the one of the screen: what came, in order, handed over in batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from infertool.feed.arrival import Arrival
from infertool.watch.state import State

# Events that wait for the screen; past this many the source waits, and with it the server. None is dropped.
MOST_WAITING = 20_000

Change = Callable[[State, float], None]


class Inbox:
    """Changes of one bus's state, oldest first."""

    def __init__(self) -> None:
        self._changes: deque[tuple[Change, int]] = deque()
        self._waiting = 0
        self._closed = False
        self._room = threading.Condition()

    def put_arrivals(self, arrivals: Sequence[Arrival]) -> None:
        """Take a batch of events; wait while too many wait already."""
        with self._room:
            self._room.wait_for(lambda: self._waiting < MOST_WAITING or self._closed)
            self._changes.append((lambda state, _now: state.take(arrivals), len(arrivals)))
            self._waiting += len(arrivals)

    def put(self, change: Change) -> None:
        """Take another change."""
        with self._room:
            self._changes.append((change, 0))

    def drain(self, state: State, now: float, most: int) -> int:
        """Apply what waits, whole batches until there were `most` events; return how many there were."""
        count = 0
        while count < most:
            with self._room:
                if not self._changes:
                    break
                change, events = self._changes.popleft()
                self._waiting -= events
                self._room.notify_all()
            change(state, now)
            count += events
        return count

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._room:
            self._closed = True
            self._room.notify_all()
