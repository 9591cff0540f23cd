"""The thread that watches calls of the model, and the thread that reports late outcomes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from infertool.consumer.attempt import Failure, Outcome
from infertool.consumer.guarded import Fail, guarded_thread
from infertool.consumer.worker import Caller

OnOutcomes = Callable[[Sequence[Outcome]], None]
# The outcomes of calls, and for how long the model was busy with them, in seconds.
_Report = tuple[Sequence[Outcome], float]


# How long outcomes of calls that take more than 2 ms wait for others, where many are made at once. Seconds.
_GATHER_S: Final = 0.001


class Reports:
    """Passes outcomes to `on_outcomes`, which may block, in the calling thread or in one of its own.

    `learn` is called with the events' outcomes and the seconds that the model was busy with them. `fail` gets an error
    of that thread.
    """

    def __init__(self, on_outcomes: OnOutcomes, learn: Callable[[Sequence[Outcome], float], None], fail: Fail) -> None:
        self._on_outcomes = on_outcomes
        self._learn = learn
        self._late: queue.SimpleQueue[_Report | None] = queue.SimpleQueue()
        self._thread = guarded_thread(self._run, "late-reports", fail)
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def report(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Report in the calling thread. Drops the outcomes once stopped: the broker has those events back."""
        self._report([(outcomes, spent_s)])

    def report_later(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Report soon, from another thread. Does not block."""
        self._late.put((outcomes, spent_s))

    def waiting(self) -> int:
        """Return how many calls' outcomes wait for that thread."""
        return self._late.qsize()

    def stop(self, deadline: float) -> bool:
        """Report what is there until `deadline` (monotonic), then nothing more. Return False if something was left."""
        self._late.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._ended.set()
        return not self._thread.is_alive()

    def _report(self, reports: Sequence[_Report]) -> None:
        if self._ended.is_set():
            return
        for outcomes, spent_s in reports:
            # A model that is away says nothing about its speed, nor does an event that it never saw.
            if spent_s and not any(outcome.is_held for outcome in outcomes):
                self._learn(outcomes, spent_s)
        self._on_outcomes([outcome for outcomes, _ in reports for outcome in outcomes])

    def _run(self) -> None:
        reports: list[_Report | None] = []
        while None not in reports:
            # To report many outcomes takes little longer than one: while several come at a time, others soon will.
            if len(reports) > 1:
                time.sleep(_GATHER_S)
            reports = [self._late.get() for _ in range(max(1, self._late.qsize()))]
            if there := [report for report in reports if report is not None]:
                self._report(there)


# A caller that has been busy with the events it took for longer than this hands back those not begun. Seconds.
HAND_BACK_S = 0.02


class Watchdog:
    """Watches callers, so that no event waits behind a slow call, and no call lasts longer than `timeout_s`.

    Callers that hold several events are looked at every 20 ms, the others ten times within `timeout_s`. `fail` gets an
    error of the thread.
    """

    def __init__(self, timeout_s: float, fail: Fail) -> None:
        self._fail = fail
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._holders: set[Caller] = set()
        self._roused = threading.Event()
        self._ended = False
        self._ticked = time.monotonic()

    def start(self, callers: Callable[[], Iterable[Caller]]) -> None:
        """Start the thread, which watches `callers()`."""
        guarded_thread(partial(self._run, callers), "watchdog", self._fail).start()

    def silent_s(self) -> float:
        """Return for how long the thread has not looked, in seconds."""
        return time.monotonic() - self._ticked

    def stop(self) -> None:
        """End the thread once no caller holds several events."""
        self._ended = True
        self._roused.set()

    def hold(self, caller: Caller) -> None:
        """Note that `caller` holds events that must not wait for each other."""
        with self._lock:
            self._holders.add(caller)
        if not self._roused.is_set():
            self._roused.set()

    def release(self, caller: Caller) -> None:
        """Note that `caller` holds no event any more, or one alone."""
        if caller in self._holders:
            with self._lock:
                self._holders.discard(caller)

    def _run(self, callers: Callable[[], Iterable[Caller]]) -> None:
        failure = Failure("infer", "Timeout", f"the model gave no result within {self._timeout_s:g} s", retryable=True)
        while self._holders or not self._ended:
            if not self._holders:
                self._roused.wait(self._timeout_s / 10)
                self._roused.clear()
            time.sleep(HAND_BACK_S)
            self._ticked = time.monotonic()
            with self._lock:
                late = [caller for caller in self._holders if caller.lasted_s() > HAND_BACK_S]
            for caller in late:
                caller.hand_back()
            for caller in callers():
                if caller.running_s() > self._timeout_s:
                    caller.overrun(self._timeout_s, failure)
