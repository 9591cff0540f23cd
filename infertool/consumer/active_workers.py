"""The workers that run now, and how many may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from infertool.consumer.event import Event
from infertool.consumer.tuning import AdaptiveLimit
from infertool.consumer.work_queue import Group, WorkQueue
from infertool.consumer.worker import Caller, Worker


class ActiveWorkers:
    """Workers, started when there is work for them, and at most `concurrency`, or as many as `limit` allows.

    A thread that calls the model without being a worker counts as one of them (`admit`).
    """

    def __init__(
        self,
        queue: WorkQueue,
        start_worker: Callable[[], Worker | None],
        *,
        concurrency: int,
        limit: AdaptiveLimit | None,
        on_limit: Callable[[int], None],
    ) -> None:
        self._queue = queue
        self._start_worker = start_worker
        self._concurrency = concurrency
        self._limit = limit
        self._on_limit = on_limit
        # Guarded by the queue's lock.
        self._callers: set[Caller] = set()
        self._hung: list[Caller] = []
        self._removed = threading.Condition(queue.lock)

    def callers(self) -> list[Caller]:
        """Return all workers, and the other threads that call the model."""
        with self._queue.lock:
            return list(self._callers)

    def submit(self, events: Iterable[Event], *, first: bool = False) -> None:
        """Queue events, behind the others or before them."""
        with self._queue.lock:
            if self._queue.add(events, first=first):
                self._call_workers()

    def take(self) -> list[Group]:
        """Return what one worker is to try next; empty when it is to end. Waits for it."""
        with self._queue.lock:
            groups = self._queue.take(self._has_room)
            if groups and self._queue.in_batches:
                self._call_workers()  # the next batch is for another one to fill
            return groups

    def admit(self, caller: Caller) -> bool:
        """Let `caller` call the model if that takes nobody's turn; return False otherwise."""
        with self._queue.lock:
            if self._queue.stopped or self._queue or not self._has_room():
                return False
            self._callers.add(caller)
            return True

    def remove(self, caller: Caller) -> None:
        """Note that `caller` calls the model no more. Another may start in its place."""
        with self._queue.lock:
            self._callers.discard(caller)
            if self._queue.stopped:
                self._removed.notify_all()
            elif self._queue:
                self._call_workers()

    def abandon(self, caller: Caller) -> int:
        """Remove a caller whose call hangs. Return the number of calls that hang now."""
        self.remove(caller)
        self._hung = [each for each in [*self._hung, caller] if each.is_alive()]
        return len(self._hung)

    def measured(self, call_s: float, *, failed: bool) -> None:
        """Learn how long a call took, and whether one failed that may be tried again."""
        if self._limit is None:
            return
        with self._queue.lock:
            if self._limit.measured(call_s, failed=failed, full=bool(self._queue)):
                self._on_limit(self._limit.value)
                self._call_workers()

    def wait_until_ended(self, deadline: float) -> bool:
        """Wait until `deadline` (monotonic) for all to end, once the queue has stopped. Return True if they have."""
        with self._queue.lock:
            return self._removed.wait_for(lambda: not self._callers, max(0.0, deadline - time.monotonic()))

    def _has_room(self) -> bool:
        return len(self._callers) - self._queue.idle < self._most()

    def _most(self) -> int:
        return self._limit.value if self._limit else self._concurrency

    def _call_workers(self) -> None:
        """Wake or start as many workers as there is work for."""
        missing = self._queue.wake()
        for _ in range(min(missing, self._most() - len(self._callers))):
            worker = self._start_worker()
            if worker is None:
                return
            self._callers.add(worker)
            worker.start()
