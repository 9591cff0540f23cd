"""Events that wait for workers, and workers that wait for events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from infertool.consumer.backlog import Backlog, Group
from infertool.consumer.event import Event
from infertool.consumer.tuning import BatchLimits


class WorkQueue:
    """A queue of events that workers take in chunks of single ones or, with `batches`, in batches. Thread-safe.

    `lock` guards the queue. Whoever decides something by the queue's state holds it meanwhile.
    """

    def __init__(self, concurrency: int, batches: BatchLimits | None, *, on_batch_size: Callable[[int], None]) -> None:
        self._backlog = Backlog(concurrency, batches)
        self._batches = batches
        self._on_batch_size = on_batch_size
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        # One worker at a time waits for its batch to fill; the others wait for their turn.
        self._filled = threading.Condition(self.lock)
        self._filling = False
        self._idle = 0
        self.stopped = False

    def __len__(self) -> int:
        """Return how many events wait."""
        return len(self._backlog)

    @property
    def in_batches(self) -> bool:
        """True if several events are tried in one call."""
        return self._batches is not None

    @property
    def idle(self) -> int:
        """The number of workers that wait in `take`."""
        return self._idle

    def add(self, events: Iterable[Event], *, first: bool = False) -> bool:
        """Queue events, behind the others or before them. Return True if workers may be needed: call `wake` then.

        Drops the events once stopped.
        """
        with self.lock:
            if self.stopped:
                return False
            if first:
                self._backlog.add_first(events)
            else:
                self._backlog.add(events)
            if self._filling:
                self._filled.notify()
            return not self._filling

    def wake(self) -> int:
        """Wake the idle workers that there is work for. Return the number of further workers that there is work for."""
        with self.lock:
            wanted = -(-len(self._backlog) // self._backlog.share())
            self._changed.notify(wanted)
            return wanted - self._idle

    def take(self, has_room: Callable[[], bool]) -> list[Group]:
        """Return the groups for one worker, once there are events and `has_room()` is True; empty once stopped.

        `has_room` is called with the lock, after each `wake`.
        """
        with self.lock:
            self._idle += 1
            while not (self.stopped or (self._backlog and not self._filling and has_room())):
                self._changed.wait()
            self._idle -= 1
            if self.stopped:
                return []
            if self._batches is None:
                return self._backlog.chunk()
            self._fill(self._batches)
            return [self._backlog.batch(self._batches.size)] if self._backlog else []

    def stop(self) -> None:
        """Drop all events and let all workers end."""
        with self.lock:
            self.stopped = True
            self._backlog.clear()
            self._changed.notify_all()
            self._filled.notify_all()

    def measured(self, count: int, spent_s: float) -> None:
        """Learn that the model was busy with `count` events for `spent_s`."""
        self._backlog.measured(count, spent_s)
        if self._batches:
            with self.lock:
                if self._batches.measured(count, spent_s):
                    self._on_batch_size(self._batches.size)

    def _fill(self, batches: BatchLimits) -> None:
        left_s = batches.wait_s - (time.monotonic() - self._backlog.oldest_at())
        if left_s <= 0 or self._backlog.fills(batches.size):
            return
        self._filling = True
        self._filled.wait_for(lambda: self.stopped or self._backlog.fills(batches.size), left_s)
        self._filling = False
