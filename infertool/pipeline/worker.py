"""One worker thread of the executor."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Protocol

from infertool.errors import InfertoolError
from infertool.pipeline.event import Event, Failure, Outcome

# Events that are tried in one call; one event, but for batches.
Group = list[Event]
Try = Callable[[Group], Sequence[Outcome]]


class Employer(Protocol):
    """What a worker needs of its executor."""

    def take(self) -> list[Group]:
        """Return what to try next; empty when the worker should end."""

    def done(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Accept outcomes, for which the model was busy for `spent_s`."""

    def failed(self, group: Group, failure: Failure, spent_s: float) -> None:
        """Accept that a call ended without an answer after `spent_s`; a group's events are then tried one by one."""

    def submit(self, events: Iterable[Event]) -> None:
        """Queue events whose try has not begun."""

    def put_back(self, groups: Sequence[Group]) -> None:
        """Take back events whose try was counted and not made."""

    def abandoned(self, worker: Worker) -> None:
        """Replace a worker whose call hangs for ever."""

    def retire(self, worker: Worker) -> None:
        """Strike the worker."""

    def has_stopped(self) -> bool:
        """Say whether there will be nothing more to take."""

    def fail(self, error: InfertoolError) -> None:
        """End the run because of `error`."""


class Worker(ABC):
    """Has events tried, and can be watched meanwhile."""

    @abstractmethod
    def running_s(self) -> float:
        """Return for how long the current call has run, in seconds; 0 when there is none."""

    @abstractmethod
    def overrun(self, failure: Failure) -> None:
        """Give up on the current call, which has taken too long."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Say whether it still runs, or hangs."""


class WorkerThread(threading.Thread, Worker):
    """Takes groups of events and has them tried."""


class Calls(Worker):
    """Calls of the model that one thread makes itself. A call that hangs cannot be ended: its thread is left behind."""

    def __init__(self, employer: Employer, attempt: Try) -> None:
        super().__init__()
        self._employer = employer
        self._attempt = attempt
        self._lock = threading.Lock()
        self._groups: deque[Group] = deque()
        self._begun = time.monotonic()
        self._since: float | None = None
        self._outcomes: list[Outcome] = []
        self._abandoned = False

    def make(self, groups: Iterable[Group]) -> float | None:
        """Try `groups`, report the outcomes, and return the seconds it took; None if given up meanwhile."""
        self._begun = time.monotonic()
        self._groups = deque(groups)
        self._outcomes = []
        while self._groups:
            self._since = time.monotonic()
            outcomes = self._attempt(self._groups[0])
            with self._lock:
                if self._abandoned:
                    return None
                self._since = None
                self._groups.popleft()
                self._outcomes += outcomes
        spent_s = time.monotonic() - self._begun
        self._report(spent_s)
        return spent_s

    def running_s(self) -> float:
        """See `Worker`."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def overrun(self, failure: Failure) -> None:
        """See `Worker`. What this thread has done before is reported here, since it may never return."""
        with self._lock:
            since = self._since
            if since is None:
                return
            self._abandoned = True
            group, *rest = self._groups
        self._employer.abandoned(self)
        self._report(since - self._begun)
        self._employer.submit(chain.from_iterable(rest))
        self._employer.failed(group, failure, time.monotonic() - since)

    def _report(self, spent_s: float) -> None:
        """Report what is done, once: this thread and who watches it may both want to."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
        if outcomes:
            self._employer.done(outcomes, spent_s)


class ThreadWorker(WorkerThread, Calls):
    """A thread of its own that calls the model."""

    def __init__(self, employer: Employer, attempt: Try) -> None:
        Calls.__init__(self, employer, attempt)
        threading.Thread.__init__(self, name="worker", daemon=True)

    def run(self) -> None:
        """Work until there is nothing more to take."""
        while groups := self._employer.take():
            if self.make(groups) is None:
                return
        self._employer.retire(self)


class InlineCalls(Calls):
    """Calls that a thread makes which brought the events, and is wanted elsewhere."""

    def __init__(self, employer: Employer, attempt: Try) -> None:
        super().__init__(employer, attempt)
        self._relieved = False
        self._over = False

    def run(self, groups: Iterable[Group]) -> float | None:
        """Try `groups`, report the outcomes, and retire. Return for how long the calls took; None if relieved."""
        try:
            spent_s = self.make(groups)
        finally:
            self._over = True
            self._employer.retire(self)
        return None if self._relieved else spent_s

    def lasted_s(self) -> float:
        """Return for how long it lasts already, in seconds, be it the calls or what follows from them."""
        return time.monotonic() - self._begun

    def unload(self) -> None:
        """Give back what it has not begun, for others to try."""
        with self._lock:
            self._relieved = True
            rest = [self._groups.pop() for _ in range(len(self._groups) - 1)]
        self._employer.submit(chain.from_iterable(reversed(rest)))

    def report_so_far(self) -> None:
        """Report what it has done."""
        self._report(self.lasted_s() - self.running_s())

    def is_alive(self) -> bool:
        """See `Worker`."""
        return not self._over
