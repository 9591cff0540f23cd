"""Failed events that wait for the dead-letter queue: which of them share a transaction, and which wait longer.

A broker may end the connection over one dead letter, or refuse one, and does not say which. So those of a transaction
that failed are tried in halves, down to the one; that one waits, longer each time, and the others go on.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable

from infertool.pipeline.event import Dead

# A commit is a disk sync, so many moves share one; the page of a default ActiveMQ is 200 messages.
MOST_MOVES = 100
# A transaction is held in the broker's memory until its commit.
MOST_BYTES = 8_388_608


class MoveQueue:
    """In order of arrival, but for those that wait. Times are monotonic seconds. Not thread-safe."""

    def __init__(self) -> None:
        self._ready: deque[Dead] = deque()
        self._later: list[tuple[float, int, Dead]] = []
        self._numbers = itertools.count()

    def add(self, dead: Iterable[Dead], now: float) -> None:
        """Take in events."""
        for each in dead:
            if each.not_before > now:
                heapq.heappush(self._later, (each.not_before, next(self._numbers), each))
            else:
                self._ready.append(each)

    def take(self, now: float) -> list[Dead]:
        """Return the events of the next transaction; none when all of them wait."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        batch: list[Dead] = []
        most, size = MOST_MOVES, 0
        while self._ready and len(batch) < min(most, self._ready[0].together):
            size += len(self._ready[0].event.message.body)
            if batch and size > MOST_BYTES:
                break
            most = min(most, self._ready[0].together)
            batch.append(self._ready.popleft())
        return batch

    def wait_s(self, now: float) -> float | None:
        """Return how long until there is something to take, None when nothing waits."""
        if self._ready:
            return 0.0
        return max(0.0, self._later[0][0] - now) if self._later else None

    def clear(self) -> None:
        """Forget all."""
        self._ready.clear()
        self._later.clear()


def suspect(batch: list[Dead]) -> Dead | None:
    """Note that the transaction of `batch` failed. Return the event that was alone in it."""
    if len(batch) == 1:
        batch[0].together = 1
        batch[0].failures += 1
        return batch[0]
    for dead in batch:
        dead.together = len(batch) // 2
    return None
