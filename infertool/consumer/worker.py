"""Workers of the executor: what every kind can do, and those that call the model on a thread of this process."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Protocol

from infertool.consumer.attempt import Preparation
from infertool.consumer.event import Event, Failure, Outcome
from infertool.errors import InfertoolError
from infertool.text import json_text

# Events that are tried in one call; one event, but for batches.
Group = list[Event]
# Calls the model. None: the call for several events raised, and each half is to be tried for itself.
Try = Callable[[Group], Sequence[Outcome] | None]


class WorkerHost(Protocol):
    """What a worker needs of its executor."""

    def take(self, worker: Worker) -> list[Group]:
        """Return what to try next; empty when the worker should end."""

    def done(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Accept outcomes, for which the model was busy for `spent_s`. May wait, for room at Phoenix."""

    def done_later(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Accept outcomes from a thread that must not wait."""

    def failed(self, group: Group, failure: Failure, spent_s: float) -> None:
        """Accept that a call ended without an answer after `spent_s`; a group's events are then tried one by one."""

    def return_uncounted(self, events: Iterable[Event]) -> None:
        """Take back events whose try has not begun and was not counted. They come before all others."""

    def return_counted(self, events: Iterable[Event]) -> None:
        """Take back events whose try was counted and not made."""

    def abandoned(self, worker: Worker) -> None:
        """Replace a worker whose call hangs for ever."""

    def remove_worker(self, worker: Worker) -> None:
        """Strike the worker."""

    def has_stopped(self) -> bool:
        """Return True when there will be nothing more to take."""

    def fail(self, error: InfertoolError) -> None:
        """End the run because of `error`."""


class Worker(ABC):
    """Has events tried, and can be watched meanwhile. All but `start` may be called from any thread."""

    @abstractmethod
    def start(self) -> None:
        """Begin to take events."""

    @abstractmethod
    def running_s(self) -> float:
        """Return for how long the current call of the model has run, in seconds; 0 when there is none."""

    @abstractmethod
    def lasted_s(self) -> float:
        """Return for how long the calls for the events it took have lasted, in seconds."""

    @abstractmethod
    def relieve(self) -> None:
        """Give back the events whose call has not begun, and report the outcomes that are there. Does not wait."""

    @abstractmethod
    def overrun(self, limit_s: float, failure: Failure) -> None:
        """Give up on the current call if it has run for longer than `limit_s`."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Return True while it runs, or hangs."""


class Calls(Worker):
    """Calls of the model that one thread makes itself. A call that hangs cannot be ended: its thread is left behind."""

    def __init__(self, host: WorkerHost, attempt: Try) -> None:
        self._host = host
        self._attempt = attempt
        self._lock = threading.Lock()
        # The first is in work. Only the thread that makes the calls removes it; `relieve` removes those behind it.
        self._groups: deque[Group] = deque()
        self._begun = time.monotonic()
        self._since: float | None = None
        self._outcomes: list[Outcome] = []
        self._abandoned = False

    def make(self, groups: Iterable[Group]) -> float | None:
        """Try `groups`, report the outcomes, and return the seconds the calls took; None if given up meanwhile."""
        self._begun = time.monotonic()
        self._groups = deque(groups)
        self._outcomes = []
        while self._groups:
            self._since = time.monotonic()
            outcomes = self._attempt(self._groups[0])
            parts = halves(self._groups[0]) if outcomes is None else ()
            with self._lock:
                if self._abandoned:
                    return None
                self._since = None
                self._groups.popleft()
                self._groups.extendleft(reversed(parts))
                self._outcomes += outcomes or ()
        with self._lock:
            spent_s = time.monotonic() - self._begun
            outcomes, self._outcomes = self._outcomes, []
        if outcomes:
            self._host.done(outcomes, spent_s)
        return spent_s

    def running_s(self) -> float:
        """See `Worker`."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def lasted_s(self) -> float:
        """See `Worker`. What follows from the calls, such as waiting for room at Phoenix, counts as well."""
        return time.monotonic() - self._begun

    def relieve(self) -> None:
        """See `Worker`."""
        with self._lock:
            rest = [self._groups.pop() for _ in range(len(self._groups) - 1)]
            outcomes, self._outcomes = self._outcomes, []
            spent_s = 0.0
            if outcomes:
                now = time.monotonic()
                spent_s = (self._since or now) - self._begun
                self._begun = self._since or now
        self._give_back(chain.from_iterable(reversed(rest)))
        if outcomes:
            self._host.done_later(outcomes, spent_s)

    def overrun(self, limit_s: float, failure: Failure) -> None:
        """See `Worker`."""
        with self._lock:
            spent_s = self.running_s()
            if spent_s <= limit_s:
                return
            self._abandoned = True
            group = self._groups[0]
        self._host.abandoned(self)
        self.relieve()
        self._host.failed(group, failure, spent_s)

    def _give_back(self, events: Iterable[Event]) -> None:
        self._host.return_uncounted(events)


class ThreadWorker(Calls):
    """A thread of its own that calls `predict` for one event after the other."""

    def __init__(self, host: WorkerHost, attempt: Try) -> None:
        super().__init__(host, attempt)
        # Not a subclass of Thread: its private names would be ours, and differ between versions of Python.
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        """See `Worker`."""
        self._thread.start()

    def is_alive(self) -> bool:
        """See `Worker`."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while groups := self._host.take(self):
            if self.make(groups) is None:
                return
        self._host.remove_worker(self)


class BatchWorker(ThreadWorker):
    """A thread of its own that calls `predict_batch`. The tries of a batch's events are counted when it takes them."""

    def __init__(self, host: WorkerHost, attempt: Try, prepare: Preparation) -> None:
        super().__init__(host, attempt)
        self._prepare = prepare

    def make(self, groups: Iterable[Group]) -> float | None:
        """See `Calls`."""
        return super().make(list(fit(groups, self._prepare, self._host)))

    def _give_back(self, events: Iterable[Event]) -> None:
        self._host.return_counted(events)


class InlineCalls(Calls):
    """Calls that a thread makes which brought the events, and is wanted elsewhere."""

    def __init__(self, host: WorkerHost, attempt: Try) -> None:
        super().__init__(host, attempt)
        self._relieved = False
        self._over = False

    def start(self) -> None:
        """See `Worker`. The thread is there already."""

    def run(self, groups: Iterable[Group]) -> float | None:
        """Try `groups`, report the outcomes, and retire. Return for how long the calls took; None if relieved."""
        try:
            spent_s = self.make(groups)
        finally:
            self._over = True
            self._host.remove_worker(self)
        return None if self._relieved else spent_s

    def relieve(self) -> None:
        """See `Worker`."""
        self._relieved = True
        super().relieve()

    def is_alive(self) -> bool:
        """See `Worker`."""
        return not self._over


def fit(groups: Iterable[Group], prepare: Preparation, host: WorkerHost) -> Iterable[Group]:
    """Yield each group without the events that cannot be tried; those are reported at once."""
    for group in groups:
        failures = [(event, prepare.begin(event)) for event in group]
        poison = [Outcome(event, failure=failure) for event, failure in failures if failure is not None]
        if poison:
            host.done(poison, 0.0)
        if len(poison) < len(group):
            yield [event for event, failure in failures if failure is None]


def halves(group: Group) -> list[Group]:
    """Return both halves of a group whose call raised, decoded anew: the model may have changed the payloads."""
    for event in group:
        event.payload = json_text.loads(event.message.body)
    middle = len(group) // 2
    return [group[:middle], group[middle:]]
