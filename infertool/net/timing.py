"""Waits between attempts, the time that a large request may take, and delayed calls from one thread."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# Keeps 2**exponent within a float; any cap is reached long before.
_LARGEST_EXPONENT = 62
# What a slow line and a busy broker manage: 99 MiB took an ActiveMQ with a heap of 1 GiB 13 s on a good day.
_SLOWEST_BYTES_S = 1024 * 1024


def left_s(deadline: float) -> float:
    """Return the seconds left until `deadline`, a time of `time.monotonic`; 0 once it has passed."""
    return max(0.0, deadline - time.monotonic())


def seconds_for(size: int) -> float:
    """Return how much longer an answer may take for `size` bytes."""
    return size / _SLOWEST_BYTES_S


@dataclass(frozen=True, slots=True)
class FullJitter:
    """Full-jitter exponential backoff: uniform in [0, min(cap, base * 2**(attempt-1))].

    Source: Amazon Builders' Library, "Timeouts, retries, and backoff with jitter". Times in seconds.
    """

    base_s: float
    cap_s: float

    def ceiling(self, attempt: int) -> float:
        """Return the maximum wait after failed attempt number `attempt` (1 is the first), in seconds."""
        return min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, _LARGEST_EXPONENT))

    def wait(self, attempt: int, rng: random.Random | None = None) -> float:
        """Return a random wait after failed attempt number `attempt`, in seconds."""
        uniform = rng.uniform if rng else random.uniform
        return uniform(0.0, self.ceiling(attempt))


_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """Wait after the first, second, ... failure, in seconds; the last one repeats.

    Up to 10 % is added at random, so that many clients of one server do not reconnect at the same instant.
    """

    waits_s: tuple[float, ...]

    def wait(self, failures: int) -> float:
        """Return the wait after failure number `failures` (1 is the first), in seconds."""
        wait = self.waits_s[min(failures, len(self.waits_s)) - 1]
        return wait * random.uniform(1.0, 1.0 + _JITTER)  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """How a socket reconnects. It delays its joins by `settle_s` seconds if the server was unreachable."""

    schedule: Schedule
    settle_s: float = 0.0


RECONNECT = Schedule((0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0))
VIEWER = Reconnecting(RECONNECT)
# A viewer tries at least every 1.1 s, so within 1.5 s after the server is back it has joined.
PUBLISHER = Reconnecting(Schedule((0.25, 0.5, 1.0, 2.0, 5.0)), settle_s=1.5)
REJOIN = Schedule((1.0, 2.0, 5.0, 10.0))


_Call = Callable[[], None]


class Timers:
    """Calls functions when their delay is over, in the order of their due times, from a thread of its own.

    A call that blocks delays the calls behind it. A call that raises ends the thread; `on_failure` is called then.
    """

    def __init__(self, name: str, on_failure: _Call | None = None) -> None:
        self._on_failure = on_failure
        self._due: list[tuple[float, int, _Call]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after(self, delay_s: float, call: _Call) -> None:
        """Call `call` in `delay_s` seconds, unless stopped before. A call cannot be cancelled."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), call))
            self._changed.notify()

    def stop(self) -> None:
        """Drop all pending calls. A call in progress continues."""
        with self._changed:
            self._stopped = True
            self._due.clear()
            self._changed.notify()

    def join(self) -> None:
        """Wait for the end of the thread, after `stop`. Returns at once on the thread itself."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while call := self._next():
                call()
        except BaseException:
            if self._on_failure:
                self._on_failure()
            raise

    def _next(self) -> _Call | None:
        with self._changed:
            while not self._stopped:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_s)
        return None
