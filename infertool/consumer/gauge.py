"""Reports once a second what a consumer holds, what its queue holds, and whether its threads run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from infertool.brokers.partitioned import Lag
from infertool.brokers.port import Depth
from infertool.consumer.guarded import Fail, guarded_thread
from infertool.telemetry.signals import InProgress, LagState, Observe, QueueState, Ticks, Unconfirmed

# Time between two reports. Seconds.
REPORT_S = 1.0
# Time between two requests for the queue's depth. Seconds.
ASK_S = 2.0
# Time between two looks at the oldest message and at the dead letters, and time until the first one. Seconds.
# ActiveMQ is busy for up to 0.2 s to show the first of many messages.
LOOK_S = 30.0
FIRST_LOOK_S = 5.0
# Longest wait for the broker's answer. Seconds.
ANSWER_S = 2.0
# After this number of requests in a row without an answer, the broker is asked no more on this connection: one without
# a plugin for them keeps them. One that has answered on it is asked each `LOOK_S`: it was busy.
MOST_UNANSWERED = 3


@dataclass(frozen=True, slots=True)
class Probes:
    """What is asked for metrics alone. Each is called with the longest wait in seconds, `ticks` without one."""

    oldest_s: Callable[[float], float | None]
    dead_letters: Callable[[float], Depth | None]
    ticks: Callable[[], Ticks]


class Gauge:
    """Reports the events in progress, the unconfirmed pushes and the waiting messages, from a thread of its own."""

    def __init__(
        self,
        *,
        in_progress: Callable[[], int],
        window: Callable[[], int],
        measure: Callable[[float], Depth | None],
        pending: Callable[[], Unconfirmed],
        observe: Observe,
        fail: Fail,
        lag: Callable[[float], Lag | None] | None = None,
        probes: Probes | None = None,
    ) -> None:
        self._ask_lag = lag
        self._lag: Lag | None = None
        self._probes = probes
        self._look_at = time.monotonic() + FIRST_LOOK_S
        self._queue_state = QueueState()
        self._in_progress = in_progress
        self._window = window
        self._measure = measure
        self._pending = pending
        self._observe = observe
        self._waiting: int | None = None
        self._oldest_s: float | None = None
        self._ask_at = 0.0
        self._unanswered = 0
        self._has_answered = False
        self._stopped = threading.Event()
        self._thread = guarded_thread(self._run, "gauge", fail)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Does not wait for an answer of the broker."""
        self._stopped.set()

    def reconnected(self) -> None:
        """Ask the broker for depths again: it may be another one."""
        self._unanswered, self._has_answered, self._ask_at = 0, False, 0.0

    def _run(self) -> None:
        while not self._stopped.is_set():
            is_asked = self._has_answered or self._unanswered < MOST_UNANSWERED
            if time.monotonic() >= self._ask_at and is_asked:
                self._ask()
            if self._probes:
                self._observe(self._probes.ticks())
                self._observe(self._queue_state)
            self._observe(InProgress(self._in_progress(), self._window(), self._waiting))
            self._observe(self._pending())
            self._stopped.wait(REPORT_S)

    def _ask(self) -> None:
        depth = self._measure(ANSWER_S)
        lag = self._lag = self._ask_lag(ANSWER_S) if self._ask_lag else None
        self._has_answered = self._has_answered or bool(depth or lag)
        self._unanswered = 0 if depth or lag else self._unanswered + 1
        self._ask_at = time.monotonic() + (ASK_S if self._unanswered < MOST_UNANSWERED else LOOK_S)
        self._waiting = _waiting(depth) if depth else None
        if lag:
            self._waiting = max(0, lag.messages - self._in_progress())
            self._observe(LagState(lag.messages, lag.seconds, lag.lost, lag.gap))
        if self._probes:
            self._queue_state = self._look(self._probes, depth or Depth())

    def _look(self, probes: Probes, depth: Depth) -> QueueState:
        dead_letters = self._queue_state.dead_letters
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            self._oldest_s = probes.oldest_s(ANSWER_S) if self._waiting and not self._lag else None
            dead = probes.dead_letters(ANSWER_S)
            dead_letters = dead.size if dead else None
        if self._lag:
            self._oldest_s = self._lag.seconds
        if not self._waiting:
            self._oldest_s = None
        # In an empty queue nothing waits, which is known: a rule on the age must be able to resolve.
        oldest_s = 0.0 if self._waiting == 0 else self._oldest_s
        return QueueState(depth.in_flight, depth.consumers, oldest_s, dead_letters, depth.enqueued)


def _waiting(depth: Depth) -> int | None:
    """Return the number of messages that no consumer holds, None if the broker does not tell."""
    if depth.size is None:
        return None
    return max(0, depth.size - (depth.in_flight or 0))
