"""Events that wait for workers, in chunks or batches, and the workers at work."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from infertool.consumer.attempt import Event, Group
from infertool.consumer.batching.port import Batches
from infertool.consumer.isolation import Isolation
from infertool.consumer.tuning import AdaptiveLimit
from infertool.consumer.worker import Caller, Worker

# A worker takes at least as many events as the model needs this time for: to wake a worker for each event costs more
# than a fast model. Seconds.
CHUNK_S = 0.002
LARGEST_CHUNK = 64
# It takes no more events than the model needs this time for, even when its share of the backlog is larger. Seconds.
LONGEST_CHUNK_S = 0.01
# Weight of the latest measurement in the mean time of a call.
_LATEST = 0.2
# Shortest mean time that is believed: clocks have limits. Seconds.
_SHORTEST_S = 1e-6


class Backlog:
    """Events in the order in which they are tried, taken in chunks of single ones or in batches. Not thread-safe."""

    def __init__(self, concurrency: int, batches: Batches | None) -> None:
        self._concurrency = concurrency
        self._batches = batches
        self._events: deque[Event] = deque()
        # The number of events at the front that were taken before and came back: they wait for no batch to fill.
        self._returned = 0
        self.mean_s = 1.0

    def __len__(self) -> int:
        """Return how many events wait."""
        return len(self._events)

    def add(self, events: Iterable[Event]) -> None:
        """Queue events behind the others."""
        self._events.extend(events)

    def add_first(self, events: Iterable[Event]) -> None:
        """Queue events that were taken and not tried, before the others and in their order."""
        returned = list(events)
        self._events.extendleft(reversed(returned))
        self._returned += len(returned)

    def clear(self) -> None:
        """Drop all."""
        self._events.clear()
        self._returned = 0

    def remove(self, is_wanted: Callable[[Event], bool]) -> list[Event]:
        """Remove and return the events for which `is_wanted` is True."""
        removed = [event for event in self._events if is_wanted(event)]
        if removed:
            gone = set(removed)
            self._returned = sum(event not in gone for event in islice(self._events, self._returned))
            self._events = deque(event for event in self._events if event not in gone)
        return removed

    def measured(self, count: int, spent_s: float) -> None:
        """Learn that the model was busy with `count` events for `spent_s`."""
        self.mean_s += _LATEST * (spent_s / count - self.mean_s)

    def share(self) -> int:
        """Return the number of events that one worker takes."""
        return self._batches.size if self._batches else self._chunk()

    def chunk(self) -> list[Group]:
        """Remove and return the events of one worker, each a group of its own."""
        return [[self._events.popleft()] for _ in range(min(self._chunk(), len(self._events)))]

    def batch(self, size: int) -> Group:
        """Remove and return up to `size` events for one call. An event marked `alone` is the only one in its batch."""
        group = [self._events.popleft()]
        while self._events and len(group) < size and not (group[0].alone or self._events[0].alone):
            group.append(self._events.popleft())
        self._returned = max(0, self._returned - len(group))
        return group

    def is_closed(self) -> bool:
        """Return True if the next batch is not to grow: it cannot, or its events have waited before."""
        # Events behind one marked `alone` belong to a later batch.
        if not self._events:
            return True  # all were removed
        return self._returned > 0 or self._events[0].alone or self._events[-1].alone

    def oldest_at(self) -> float:
        """Return when the first event was delivered (monotonic)."""
        return self._events[0].delivered_at

    def _chunk(self) -> int:
        mean_s = max(self.mean_s, _SHORTEST_S)
        if mean_s > CHUNK_S:
            return 1
        share = min(-(-len(self._events) // self._concurrency), int(LONGEST_CHUNK_S / mean_s))
        return max(share, min(LARGEST_CHUNK, int(CHUNK_S / mean_s)))


class WorkQueue:
    """A queue of events that workers take in chunks of single ones or, with `batches`, in batches. Thread-safe.

    Events that are to be tried alone come before all others. `lock` guards the queue. Whoever decides something by the
    queue's state holds it meanwhile.
    """

    def __init__(
        self, concurrency: int, batches: Batches | None, isolation: Isolation, *, on_tuned: Callable[[str, int], None]
    ) -> None:
        self._isolation = isolation
        self._backlog = Backlog(concurrency, batches)
        self._batches = batches
        self._on_tuned = on_tuned
        self._told: dict[str, int] = {}
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        # One worker at a time waits for its batch to fill; the others wait for their turn.
        self._filled = threading.Condition(self.lock)
        self._filling = False
        self._idle = 0
        self.stopped = False

    def __len__(self) -> int:
        """Return how many events wait."""
        return len(self._backlog) + len(self._isolation)

    @property
    def is_isolating(self) -> bool:
        """True while an event waits to be tried alone, or is tried so."""
        return self._isolation.is_on

    @property
    def in_batches(self) -> bool:
        """True if several events are tried in one call."""
        return self._batches is not None

    @property
    def idle(self) -> int:
        """The number of workers that wait in `take`."""
        return self._idle

    def room(self, workers: int) -> int:
        """Return how many more events keep `workers` busy until others are brought. May be less than 0.

        A worker that takes several at a time needs as many again to go on with meanwhile.
        """
        share = self._backlog.share()
        return workers * (share if share == 1 else 2 * share) - len(self)

    def add(self, events: Iterable[Event], *, first: bool = False) -> bool:
        """Queue events, behind the others or before them. Return True if workers may be needed: call `wake` then.

        Drops the events once stopped.
        """
        with self.lock:
            if self.stopped:
                return False
            before = len(self._backlog)
            events = self._isolation.others(events)
            if first:
                self._backlog.add_first(events)
            else:
                self._backlog.add(events)
            if self._batches and self._backlog:
                self._batches.arrived(len(self._backlog) - before, time.monotonic())
            if self._filling:
                self._filled.notify()
            return not self._filling

    def remove(self, is_wanted: Callable[[Event], bool]) -> list[Event]:
        """Remove and return the events for which `is_wanted` is True."""
        with self.lock:
            removed = [*self._isolation.remove(is_wanted), *self._backlog.remove(is_wanted)]
            if self._filling:
                self._filled.notify()
            return removed

    def wake(self) -> int:
        """Wake the idle workers that there is work for. Return the number of further workers that there is work for."""
        with self.lock:
            wanted = -(-len(self._backlog) // self._backlog.share()) + len(self._isolation)
            self._changed.notify(wanted)
            return wanted - self._idle

    def take(self, worker: Caller, has_room: Callable[[], bool]) -> list[Group]:
        """Return the groups for `worker`, once there are events and `has_room()` is True; empty once stopped.

        `has_room` is called with the lock, after each `wake`.
        """
        with self.lock:
            groups: list[Group] = []
            while not (groups or self.stopped):
                self._wait_for_events(has_room)
                if self._isolation:
                    groups = [[self._isolation.begin(worker)]]
                    if self._batches:
                        self._batches.began(worker, 1, time.monotonic())
                elif self._batches is not None:
                    groups = self._filled_batch(worker, self._batches)
                elif not self.stopped:
                    groups = self._backlog.chunk()
            return groups

    def _wait_for_events(self, has_room: Callable[[], bool]) -> None:
        self._idle += 1
        while not (self.stopped or ((self._isolation or (self._backlog and not self._filling)) and has_room())):
            self._changed.wait()
        self._idle -= 1

    def stop(self) -> None:
        """Drop all events and let all workers end."""
        with self.lock:
            self.stopped = True
            self._backlog.clear()
            self._isolation.clear()
            self._changed.notify_all()
            self._filled.notify_all()

    def measured(self, count: int, spent_s: float) -> None:
        """Learn that the model was busy with `count` events for `spent_s`."""
        self._backlog.measured(count, spent_s)

    def ended(self, worker: Caller) -> None:
        """Note that the call of a worker has ended: another one may have waited for that."""
        if self._batches:
            with self.lock:
                self._batches.ended(worker)
                self._filled.notify()

    def end_isolated(self, worker: Caller) -> None:
        """Note that a worker does not try the event any more that it had alone."""
        self._isolation.end(worker)

    def timed(self, worker: Caller, size: int, started: float, seconds: float) -> None:
        """Learn how long a call of a worker for a batch took."""
        if self._batches:
            with self.lock:
                self._batches.measured(worker, size, started, seconds)
                self.tell()

    def tell(self) -> None:
        """Tell the numbers that adapt, and have changed since they were told."""
        if self._batches and (found := self._batches.found()) != self._told:
            for name, value in found.items():
                if value != self._told.get(name):
                    self._on_tuned(name, value)
            self._told = found

    def forget(self, worker: Caller) -> None:
        """Note that a worker makes no more calls."""
        if self._batches:
            with self.lock:
                self._batches.forget(worker)
                self._filled.notify()

    def _filled_batch(self, worker: Caller, batches: Batches) -> list[Group]:
        """Wait as long as that pays, and return one batch; none where its events were removed meanwhile."""
        self._filling = True
        while not self._backlog.is_closed():
            wait_s = batches.wait_s(worker, len(self._backlog), self._backlog.oldest_at(), time.monotonic())
            if wait_s <= 0:
                break
            self._filled.wait(wait_s)
        self._filling = False
        if not self._backlog:
            return []
        now = time.monotonic()
        group = self._backlog.batch(batches.take(worker, len(self._backlog), now))
        batches.began(worker, len(group), now)
        return [group]


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
        self.on_taken: Callable[[], None] | None = None
        """Called when a worker has taken events; quick, and without locks of its own."""

    def room(self) -> int:
        """Return how many more events are to be queued, so that no worker waits."""
        return self._queue.room(self._most())

    def callers(self) -> list[Caller]:
        """Return all workers, and the other threads that call the model."""
        with self._queue.lock:
            return list(self._callers)

    def submit(self, events: Iterable[Event], *, first: bool = False) -> None:
        """Queue events, behind the others or before them."""
        with self._queue.lock:
            if self._queue.add(events, first=first):
                self._call_workers()

    def take(self, worker: Caller) -> list[Group]:
        """Return what a worker is to try next; empty when it is to end. Waits for it."""
        with self._queue.lock:
            if self._queue.is_isolating:
                self._queue.end_isolated(worker)
                self._call_workers()
            groups = self._queue.take(worker, self._has_room)
            if self.on_taken:
                self.on_taken()
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
            self._queue.end_isolated(caller)
            self._queue.forget(caller)
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
        most = 1 if self._queue.is_isolating else self._most()
        return len(self._callers) - self._queue.idle < most

    def _most(self) -> int:
        return self._limit.value if self._limit else self._concurrency

    def _call_workers(self) -> None:
        """Wake or start as many workers as there is work for."""
        missing = self._queue.wake()
        for _ in range(min(missing, self._most() - len(self._callers))):
            worker = self._start_worker()
            if worker is None:
                return
            # It waits for the lock. One that cannot be started is none.
            worker.start()
            self._callers.add(worker)
