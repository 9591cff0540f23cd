"""Events between the thread that polls and those that receive and settle them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final

import msgspec

from infertool.brokers.kafka.assignment import OFFSET, Assignment, Position
from infertool.brokers.kafka.messages import KafkaMessage

# Events that wait to be received, beside those in work: as many again as the window, so that receivers need not wait
# for a partition that was paused.
_LEAST_WAITING: Final = 500
# Pausing throws away what librdkafka has fetched: some thousand events a partition, which are fetched once more. A wait
# for room is better; meanwhile one more event comes with each poll, 50 a second. Seconds.
_PATIENCE_S: Final = 2.0
# Bytes of memory that events take which were read and wait. Beyond it, a partition with its share of that is not read.
_MOST_BYTES: Final = 64 * 1024 * 1024
# What delivered a message: its partition; and the number of the assignment, which no other partition has.
_PARTITION: Final = attrgetter("partition")
_EPOCH: Final = attrgetter("epoch")
# A paused partition is read again once this part of a limit is free: what was fetched of it is fetched once more.
_RESUMED: Final = 0.5


@dataclass(frozen=True, slots=True)
class Figures:
    """`gap` is the largest number of offsets between a watermark and the newest event that is done beyond it.

    `lost` counts offsets that were deleted before they were read.
    """

    in_work: int
    gap: int
    lost: int


class Deliveries:
    """The assigned partitions, and their events. At most `window` are in work at any time."""

    def __init__(self, window: int, max_gap: int) -> None:
        self._window = window
        self._max_gap = max_gap
        self._most_waiting = max(window, _LEAST_WAITING)
        self._lock = threading.RLock()
        # Events may be received; there is room for others.
        self._given = threading.Condition(self._lock)
        self._taken = threading.Condition(self._lock)
        self._ready: deque[KafkaMessage] = deque()
        self._assigned: dict[str, Assignment] = {}
        self._in_work = 0
        # Since when there was no room.
        self._full_since = time.monotonic()
        self._lost = 0
        self._closed = False
        self.stale_acks = 0

    @property
    def assigned(self) -> list[Assignment]:
        """The partitions that this consumer has."""
        with self._lock:
            return list(self._assigned.values())

    def find(self, name: str) -> Assignment | None:
        """Return the assignment of a partition, None if this consumer does not have it."""
        return self._assigned.get(name)

    def begin(self, assignments: Iterable[Assignment]) -> None:
        """Accept events of these."""
        with self._lock:
            for assignment in assignments:
                assignment.ahead = max(assignment.ahead, self._window)
                self._assigned[assignment.name] = assignment

    def widen(self, window: int) -> None:
        """Have up to `window` events in work from now on: more than before."""
        with self._lock:
            self._window = window
            self._most_waiting = max(window, _LEAST_WAITING)
            for assignment in self._assigned.values():
                assignment.ahead = max(assignment.ahead, window)
            self._given.notify()
            self._taken.notify()

    def fresh(self, assignment: Assignment, offsets: Sequence[int]) -> list[int]:
        """Note what was read, and return what is not done yet."""
        with self._lock:
            return assignment.offsets.take(offsets)

    def put(self, assignment: Assignment, messages: Sequence[KafkaMessage], keys: Sequence[bytes | None]) -> None:
        """Have events received, those of a key one after another where that is asked for."""
        with self._lock:
            if assignment.is_leaving or self._closed:
                return
            self._ready.extend(assignment.hold(messages, keys))
            self._given.notify()

    def take(self, most: int, timeout_s: float) -> list[KafkaMessage]:
        """Return up to `most` events, waiting for the first. Returns at once when closed."""
        with self._lock:
            self._given.wait_for(self._can_give, timeout_s)
            if self._closed:
                return []
            count = min(most, len(self._ready), self._window - self._in_work)
            taken = [self._ready.popleft() for _ in range(count)]
            for name, those in groupby(taken, key=_PARTITION):
                self._assigned[name].give_out(list(those))
            self._in_work += len(taken)
            if self._can_give():
                self._given.notify()
            if len(self._ready) < self._most_waiting:
                self._taken.notify()
            return taken

    def _can_give(self) -> bool:
        return self._closed or (bool(self._ready) and self._in_work < self._window)

    def settle(self, messages: Iterable[KafkaMessage]) -> int:
        """Note that events are done. Return how many were not in work here any more."""
        with self._lock:
            stale = self._end_work(messages, Assignment.settle)
            self.stale_acks += stale
            return stale

    def settle_all(self, messages: Sequence[KafkaMessage]) -> bool:
        """Note that all events are done; if one of them is no longer in work here, note nothing and return False."""
        with self._lock:
            if self.has_stale(messages):
                return False
            self._end_work(messages, Assignment.settle)
            return True

    def pass_over(self, messages: Iterable[KafkaMessage]) -> None:
        """Take events out of work without settling them; they are not given out again."""
        with self._lock:
            self._end_work(messages, Assignment.pass_over)

    def _end_work(
        self, messages: Iterable[KafkaMessage], end: Callable[[Assignment, set[int]], Sequence[KafkaMessage]]
    ) -> int:
        """Call `end` with the events in work of each partition. Return how many were not in work."""
        stale = 0
        for epoch, group in groupby(messages, key=_EPOCH):
            those = list(group)
            assignment = self._assigned.get(those[0].partition)
            if assignment is None or assignment.epoch != epoch:
                stale += len(those)
                continue
            known = assignment.in_work.intersection(map(OFFSET, those))
            if len(known) < len(those):
                stale += sum(message.offset not in known for message in those)
            following = end(assignment, known)
            self._in_work -= len(known)
            if following and not assignment.is_leaving:
                self._ready.extend(following)
        if self._can_give():
            self._given.notify()
        return stale

    def has_stale(self, messages: Iterable[KafkaMessage]) -> bool:
        """Return True if one of them is no longer in work here."""
        with self._lock:
            return any(self._holder(message) is None for message in messages)

    def give_back(self, messages: Iterable[KafkaMessage], *, redelivered: bool) -> None:
        """Note that events are not in work any more, nor done. Those of partitions that stay are received again."""
        with self._lock:
            for message in reversed(list(messages)):
                assignment = self._holder(message)
                if assignment is None:
                    continue
                assignment.take_back(message)
                self._in_work -= 1
                if not assignment.is_leaving:
                    self._ready.appendleft(
                        msgspec.structs.replace(message, redelivered=True) if redelivered else message
                    )
            if self._can_give():
                self._given.notify()

    def _holder(self, message: KafkaMessage) -> Assignment | None:
        assignment = self._assigned.get(message.partition)
        if assignment is None or assignment.epoch != message.epoch or message.offset not in assignment.in_work:
            return None
        return assignment

    def leave(self, assignments: Sequence[Assignment]) -> None:
        """Give nothing more out of these."""
        names = {assignment.name for assignment in assignments}
        with self._lock:
            for assignment in assignments:
                assignment.is_leaving = True
            self._ready = deque(message for message in self._ready if message.partition not in names)

    def is_idle(self, assignments: Sequence[Assignment]) -> bool:
        """Return True if nothing of these is in work."""
        with self._lock:
            return not any(assignment.in_work for assignment in assignments)

    def end(self, assignments: Sequence[Assignment]) -> None:
        """Settle nothing more of these."""
        self.leave(assignments)
        with self._lock:
            for assignment in assignments:
                if self._assigned.get(assignment.name) is assignment:
                    del self._assigned[assignment.name]
                    self._in_work -= len(assignment.in_work)
                    self._lost += assignment.offsets.lost
            if self._can_give():
                self._given.notify()
            self._taken.notify()

    def positions(self, assignments: Sequence[Assignment], *, final: bool = False) -> list[Position]:
        """Return what to commit."""
        with self._lock:
            found = [assignment.position(final=final) for assignment in assignments]
            return [position for position in found if position]

    def committed(self, positions: Iterable[Position]) -> None:
        """Note that a commit succeeded."""
        with self._lock:
            for position in positions:
                position.assignment.committed(position)

    def is_changed(self) -> bool:
        """Return True if there is something to commit."""
        with self._lock:
            return any(assignment.is_changed for assignment in self._assigned.values())

    def is_urgent(self) -> bool:
        """Return True if a commit must tell soon what is given out."""
        with self._lock:
            return any(assignment.is_urgent for assignment in self._assigned.values())

    def skip_to(self, assignment: Assignment, offset: int) -> int:
        """Note that events below `offset` were deleted. Return how many had not been read."""
        with self._lock:
            return assignment.offsets.skip_to(offset)

    def wait_for_room(self, timeout_s: float) -> bool:
        """Return True if more may be read, waiting up to `timeout_s` for it."""
        with self._lock:
            return self._taken.wait_for(lambda: self._closed or len(self._ready) < self._most_waiting, timeout_s)

    def flow(self) -> tuple[list[Assignment], list[Assignment]]:
        """Return which partitions to pause and which to resume, and note that it is done."""
        now = time.monotonic()
        with self._lock:
            if len(self._ready) < self._most_waiting:
                self._full_since = now
            is_full = now - self._full_since > _PATIENCE_S
            waiting_bytes = sum(assignment.waiting_bytes for assignment in self._assigned.values())
            share = _MOST_BYTES / max(1, len(self._assigned))
            to_pause: list[Assignment] = []
            to_resume: list[Assignment] = []
            for assignment in self._assigned.values():
                limit = _RESUMED if assignment.is_paused else 1.0
                stops = (
                    is_full
                    or (assignment.is_paused and len(self._ready) >= self._most_waiting * limit)
                    or (waiting_bytes >= _MOST_BYTES * limit and assignment.waiting_bytes >= share * limit)
                    or assignment.offsets.span >= self._max_gap * limit
                    or not assignment.offsets.has_room
                )
                if stops != assignment.is_paused:
                    assignment.is_paused = stops
                    (to_pause if stops else to_resume).append(assignment)
            return to_pause, to_resume

    def figures(self) -> Figures:
        """Return what is shown of it."""
        with self._lock:
            offsets = [assignment.offsets for assignment in self._assigned.values()]
            lost = self._lost + sum(each.lost for each in offsets)
            return Figures(self._in_work, max((each.gap for each in offsets), default=0), lost)

    def close(self) -> None:
        """Give nothing more out, and have `take` return at once."""
        with self._lock:
            self._closed = True
            self._ready.clear()
            self._given.notify_all()
            self._taken.notify_all()
