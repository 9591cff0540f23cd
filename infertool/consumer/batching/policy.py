"""Batches whose size follows from measured call times and arrivals."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from infertool.consumer.batching.call_times import CallTimes, Line

# Without a target, a batch grows until the fixed part of a call is this part of it: twice as many events in a call
# would gain less than that.
FIXED_SHARE: Final = 0.04
# Time that a call, and each of its events, costs beside the model: the change of threads, decoding, encoding. It is not
# in the measured time. Seconds.
OVERHEAD_S: Final = 0.0002
EVENT_OVERHEAD_S: Final = 0.00002
# Without a target, no call is made longer than this, or than so many times its fixed part. Seconds.
LONG_S: Final = 1.0
LONG_SHARE: Final = 2.0
# A batch for which no other worker and no call is waited for waits at most this part of a call's fixed time.
WAIT_SHARE: Final = 0.25
# A call waits behind the one before it, so that it may take this part of the target.
CALL_SHARE: Final = 0.5
# A call that takes longer than predicted by this factor is not waited for.
LATE: Final = 1.5
# Size before anything is measured, and how many times the largest known size the next one may be.
FIRST_SIZE: Final = 4
GROWTH: Final = 4
# A call is shared with other workers once its events take this many times its fixed part.
SHARED_FROM: Final = 2.0
# Arrivals are counted over about this time. Seconds.
ARRIVALS_S: Final = 0.5
# Calls are taken for one at a time, or for parallel ones, where that explains their times better by this factor.
_CLEARLY: Final = 0.7
_UNEXPLAINED: Final = 0.1


class Arrivals:
    """The rate of events, over about the last half second."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0

    def add(self, count: int, now: float) -> None:
        """Add events that came at `now`."""
        self._level = self._level * math.exp(-max(0.0, now - self._at) / ARRIVALS_S) + count
        self._at = now

    def rate(self, now: float) -> float:
        """Return the events a second."""
        return self._level * math.exp(-max(0.0, now - self._at) / ARRIVALS_S) / ARRIVALS_S


@dataclass(slots=True)
class _Worker:
    """What is known of a worker: how long its calls take, the size that pays, and its largest batch now."""

    times: CallTimes
    wanted: int
    size: int


class AdaptiveBatches:
    """Batches of up to `most` events for each of `workers`, whose size follows from the time that calls take.

    Each worker has a line of its own, since devices differ; where calls wait for each other, all have one device, and
    one line. A worker without calls begins with the shape of the line of the one that was measured last.

    A free worker takes what waits, up to `size`. It waits only for a call behind which its own would wait anyway, and
    for events that are about to come. `size` is where more events in a call no longer pay, or what meets `target_s`
    if that is more. No call is to take longer than `longest_s`.

    Batches have few sizes: up to 8, then 10, 12, 14, 16, 20, 24 and so on, four for each doubling, and `most`. GPUs and
    compilers choose or build their kernels for each size that is new to them, which may take longer than the call.
    What is left over is in the next batch.
    """

    def __init__(self, most: int, *, workers: int = 1, target_s: float = 0.0, longest_s: float = math.inf) -> None:
        self.size = min(FIRST_SIZE, most)
        """The largest batch of any worker now."""
        self.wanted = self.size
        """The size that pays. `size` may be less: it grows from call to call, and `limit` bounds it."""
        self.one_at_a_time: bool | None = None
        """True if calls were found to wait for each other, False if they do not, None while that is not known."""
        self._most = most
        self._workers = workers
        self._room = most
        self._target_s = target_s
        self._longest_s = longest_s
        self._serial, self._newest = CallTimes(), CallTimes()
        self._known: dict[Hashable, _Worker] = {}
        self._last_end = 0.0
        self._arrivals = Arrivals()
        # When the call of each caller is expected to begin on its device, and its time.
        self._busy: dict[Hashable, tuple[float, float]] = {}

    @property
    def line(self) -> Line:
        """The time of a call by its size, as measured with the worker whose call ended last."""
        return (self._serial if self.one_at_a_time else self._newest).line

    def limit(self, room: int) -> None:
        """Take no more than `room` events for a call: the window holds no more."""
        self._room = max(1, room)
        self.size = min(self.size, self._room)
        for worker in self._known.values():
            worker.size = min(worker.size, self._room)

    def arrived(self, count: int, now: float) -> None:
        """See `Batches`."""
        self._arrivals.add(count, now)

    def wait_s(self, caller: Hashable, waiting: int, oldest_at: float, now: float) -> float:
        """See `Batches`."""
        if waiting >= self._size(caller):
            return 0.0
        if self.one_at_a_time and (busy_s := self._free_at(now) - now) > 0:
            return busy_s
        line = self._line(caller)
        wait_s = WAIT_SHARE * line.fixed_s
        if self._arrivals.rate(now) * wait_s < 1:
            return 0.0
        if self._target_s:
            wait_s = min(wait_s, self._target_s - line.seconds(waiting))
        return max(0.0, oldest_at + wait_s - now)

    def take(self, caller: Hashable, waiting: int, now: float) -> int:
        """See `Batches`. Where calls run in parallel, a long one leaves the other workers their share."""
        most = min(waiting, self._size(caller))
        if self.one_at_a_time is False:
            line = self._line(caller)
            worth = int(SHARED_FROM * (line.fixed_s + OVERHEAD_S) / line.each_s) + 1
            if worth < most:
                most = min(most, max(worth, self._share(caller, waiting, now)))
        return self._usual(most)

    def _share(self, caller: Hashable, waiting: int, now: float) -> int:
        """Return how many of the events that wait `caller` takes so that all workers end at the same time.

        A worker in a call joins when that ends. Others not known yet count as equals.
        """
        own = self._line(caller)
        others = [(each, worker.times.line) for each, worker in self._known.items() if each != caller]
        calls = [(self._begin_s(each, now) + line.fixed_s, line.each_s) for each, line in others]
        calls += [(own.fixed_s, own.each_s)] * max(1, self._workers - len(others))
        speed, missed, end_s = 0.0, 0.0, math.inf
        for begin_s, each_s in sorted(calls):
            if end_s <= begin_s:
                break  # it would begin too late to help
            speed += 1 / each_s
            missed += begin_s / each_s
            end_s = (waiting + missed) / speed
        return math.ceil((end_s - own.fixed_s) / own.each_s)

    def _begin_s(self, caller: Hashable, now: float) -> float:
        """Return in how many seconds a worker can begin a call."""
        begins, seconds = self._busy.get(caller, (now, 0.0))
        return max(0.0, begins + seconds - now)

    def began(self, caller: Hashable, size: int, now: float) -> None:
        """See `Batches`."""
        begins = max(now, self._free_at(now)) if self.one_at_a_time else now
        self._busy[caller] = begins, self._line(caller).seconds(size)

    def _free_at(self, now: float) -> float:
        """Return when no call is waited for any more; `now` if there is none."""
        return max((begins + LATE * seconds for begins, seconds in self._busy.values()), default=now)

    def ended(self, caller: Hashable) -> None:
        """See `Batches`."""
        self._busy.pop(caller, None)

    def forget(self, caller: Hashable) -> None:
        """See `Batches`."""
        self._busy.pop(caller, None)
        self._known.pop(caller, None)

    def found(self) -> dict[str, int]:
        """See `Batches`. `parallel_calls` is 1 if calls wait for each other; it is left out while that is not known."""
        found = {"batch_size": self.size}
        if self.one_at_a_time is not None and self._workers > 1:
            found["parallel_calls"] = 1 if self.one_at_a_time else self._workers
        return found

    def measured(self, caller: Hashable, size: int, started: float, seconds: float) -> None:
        """See `Batches`."""
        ended = started + seconds
        worker = self._known.get(caller)
        if worker is None:
            times = CallTimes(like=self._newest.line if self._known else None)
            worker = self._known[caller] = _Worker(times, self.wanted, self.size)
        worker.times.add(size, seconds)
        self._newest = worker.times
        if (alone_s := ended - max(started, self._last_end)) > 0:
            self._serial.add(size, alone_s)
        self._last_end = max(self._last_end, ended)
        self._judge()
        times = self._serial if self.one_at_a_time else worker.times
        worker.wanted = self._wanted(times.line)
        size = min(max(worker.wanted, size // 2), GROWTH * times.largest, self._room, self._most)
        worker.size = self._usual(max(1, size))
        # With one device for all, what this call tells holds for each worker.
        of = [worker] if self.one_at_a_time else self._known.values()
        self.wanted = max(each.wanted for each in of)
        self.size = max(each.size for each in of)

    def _usual(self, size: int) -> int:
        """Return the largest usual size up to `size`: all but the first three binary digits are 0."""
        if size >= self._most:
            return self._most
        further = max(0, size.bit_length() - 3)
        return size >> further << further

    def _line(self, caller: Hashable) -> Line:
        worker = None if self.one_at_a_time else self._known.get(caller)
        return worker.times.line if worker else self.line

    def _size(self, caller: Hashable) -> int:
        """Return the largest batch of a worker; the smallest one of all, while its own is not known."""
        if self.one_at_a_time:
            return self.size
        worker = self._known.get(caller)
        if worker:
            return worker.size
        return min((each.size for each in self._known.values()), default=self.size)

    def _judge(self) -> None:
        errors = [worker.times.error for worker in self._known.values()]
        serial, parallel = self._serial.error, sum(errors) / len(errors)
        if max(serial, parallel) < _UNEXPLAINED:
            return
        if serial < _CLEARLY * parallel:
            self.one_at_a_time = True
        elif parallel < _CLEARLY * serial:
            self.one_at_a_time = False

    def _wanted(self, line: Line) -> int:
        pays = math.ceil((1 / FIXED_SHARE - 1) * (line.fixed_s + OVERHEAD_S) / (line.each_s + EVENT_OVERHEAD_S))
        pays = min(pays, line.most_within(max(LONG_S, LONG_SHARE * line.fixed_s)))
        meets = line.most_within(CALL_SHARE * self._target_s) if self._target_s else 0
        return max(1, min(max(pays, meets), line.most_within(self._longest_s), self._most))
