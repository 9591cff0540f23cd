"""Calls of a quick model on the thread that brings the events, without a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from infertool.consumer.attempt import Event, Failure, Group
from infertool.consumer.tuning import InlinePolicy
from infertool.consumer.watchdog import Watchdog
from infertool.consumer.work_queue import ActiveWorkers
from infertool.consumer.worker import Caller, Calls, Try, WorkerHost


class InlineRuns:
    """Runs events on the thread that brings them, while the model is quick and no other event waits for its turn.

    `on_late` is called when that thread does not return soon. Without an `attempt` nothing is run.
    """

    def __init__(
        self,
        host: WorkerHost,
        attempt: Try | None,
        workers: ActiveWorkers,
        watchdog: Watchdog,
        *,
        on_late: Callable[[], None],
    ) -> None:
        self._host = host
        self._attempt = attempt
        self._workers = workers
        self._watchdog = watchdog
        self._on_late = on_late
        self._policy = InlinePolicy()

    def run(self, events: Sequence[Event]) -> bool:
        """Try `events` in the calling thread and return True; return False if workers have to."""
        if not events or self._attempt is None or not self._policy.allows(time.monotonic()):
            return False
        run = _InlineRun(self._host, self._attempt, self._hand_off)
        if not self._workers.admit(run):
            return False
        self._watchdog.hold(run)
        spent_s = run.run([event] for event in events)
        if spent_s is not None:
            self._policy.measured(len(events), spent_s, time.monotonic())
        return True

    def _hand_off(self, run: _InlineRun) -> None:
        """Let nothing wait for the thread of `run`."""
        self._watchdog.release(run)
        if run.running_s():
            self._policy.refuted(time.monotonic())
        run.return_rest()  # first: what is read from now on comes behind it
        self._on_late()


class _InlineRun(Caller):
    """The calls of one thread that is wanted elsewhere."""

    def __init__(self, host: WorkerHost, attempt: Try, on_hand_back: Callable[[_InlineRun], None]) -> None:
        self._host = host
        self._calls = Calls(host, self, attempt, host.return_uncounted)
        self._on_hand_back = on_hand_back
        self._was_late = False
        self._over = False

    def run(self, groups: Iterable[Group]) -> float | None:
        """Try `groups` and report the outcomes. Return the seconds the calls took; None if it took too long."""
        try:
            spent_s = self._calls.make(groups)
        finally:
            self._over = True
            self._host.remove_worker(self)
        return None if self._was_late else spent_s

    def running_s(self) -> float:
        """See `Caller`."""
        return self._calls.running_s()

    def lasted_s(self) -> float:
        """See `Caller`."""
        return self._calls.lasted_s()

    def hand_back(self) -> None:
        """See `Caller`. The thread is handed off, too."""
        self._was_late = True
        self._on_hand_back(self)

    def return_rest(self) -> None:
        """Return the events whose call has not begun, and report the outcomes that are there."""
        self._calls.hand_back()

    def overrun(self, limit_s: float, failure: Failure) -> None:
        """See `Caller`."""
        self._calls.overrun(limit_s, failure)

    def is_alive(self) -> bool:
        """See `Caller`."""
        return not self._over
