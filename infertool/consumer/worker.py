"""Workers and the pool that starts them; those here call the model on a thread of this process."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Protocol

from infertool.consumer.attempt import Attempts, Event, Failure, Group, Outcome, Preparation
from infertool.consumer.batch_calls import BatchAttempts, batch_function, in_parts
from infertool.consumer.guarded import guarded_thread
from infertool.models.async_calls import cancel_call
from infertool.models.port import LoadedModel

# Calls the model. Returns a size if a call for several events failed: they are tried in parts of that size then.
Try = Callable[[Group], Sequence[Outcome] | int]


class WorkerHost(Protocol):
    """What a worker needs of its executor. All methods may be called from any thread."""

    def take(self, worker: Caller) -> list[Group]:
        """Wait for events and return the next groups to try; empty when the worker should end."""

    def done(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Accept outcomes, for which the model was busy for `spent_s`. May block until the publisher has room."""

    def done_later(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Accept outcomes from a thread that must not block."""

    def failed(self, group: Group, failure: Failure, spent_s: float) -> None:
        """Accept that a call ended without an answer after `spent_s`; a group's events are then tried one by one."""

    def return_uncounted(self, events: Iterable[Event]) -> None:
        """Take back events that were not tried, and whose try was not counted. They come before all others."""

    def return_counted(self, events: Iterable[Event]) -> None:
        """Take back events that were not tried although their try was counted. They come before all others."""

    def call_ended(self, worker: Caller, outcomes: Sequence[Outcome]) -> None:
        """Note that the model has answered. `outcomes` tell how long it took; they are reported after this."""

    def abandoned(self, worker: Caller) -> None:
        """Replace a worker whose call hangs for ever."""

    def remove_worker(self, worker: Caller) -> None:
        """Forget a worker that has ended. Another may start in its place."""

    def has_stopped(self) -> bool:
        """Return True when there will be nothing more to take."""

    def fail(self, error: BaseException) -> None:
        """End the run because of `error`."""


class Caller(ABC):
    """Calls the model for events, and can be watched meanwhile. All methods may be called from any thread."""

    @abstractmethod
    def running_s(self) -> float:
        """Return for how long the current call of the model has run, in seconds; 0 when there is none."""

    @abstractmethod
    def lasted_s(self) -> float:
        """Return for how long the calls for the events it took have lasted, in seconds."""

    @abstractmethod
    def hand_back(self) -> None:
        """Return the events whose call has not begun, and report the outcomes that are there. Does not block."""

    @abstractmethod
    def overrun(self, limit_s: float, failure: Failure) -> None:
        """Give up the current call if it has run for longer than `limit_s`."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Return True while it runs, or hangs."""


class Worker(Caller):
    """Takes events from its host until that has no more."""

    @abstractmethod
    def start(self) -> None:
        """Begin to take events."""


class Calls:
    """Calls of the model that one thread makes, for `caller`.

    A call that hangs is cancelled if its model is async; any other cannot be ended, and its thread stays.
    `give_back` takes the events whose call has not begun.
    """

    def __init__(
        self, host: WorkerHost, caller: Caller, attempt: Try, give_back: Callable[[Iterable[Event]], None]
    ) -> None:
        self._host = host
        self._caller = caller
        self._attempt = attempt
        self._give_back = give_back
        self._lock = threading.Lock()
        # The first is being tried. Only the thread that makes the calls removes it; `hand_back` removes the others.
        self._groups: deque[Group] = deque()
        self._begun = time.monotonic()
        self._since: float | None = None
        self._outcomes: list[Outcome] = []
        self._abandoned = False
        self._thread_id = 0

    def make(self, groups: Iterable[Group]) -> float | None:
        """Try `groups`, report the outcomes, and return the seconds the calls took; None if given up meanwhile."""
        self._begun = time.monotonic()
        self._thread_id = threading.get_ident()
        self._groups = deque(groups)
        self._outcomes = []
        while self._groups:
            self._since = time.monotonic()
            outcomes = self._attempt(self._groups[0])
            parts: Sequence[Group] = ()
            if isinstance(outcomes, int):
                parts, outcomes = in_parts(self._groups[0], outcomes), ()
            self._host.call_ended(self._caller, () if self._abandoned else outcomes)
            with self._lock:
                if self._abandoned:
                    return None
                self._since = None
                self._groups.popleft()
                self._groups.extendleft(reversed(parts))
                self._outcomes += outcomes
        with self._lock:
            spent_s = time.monotonic() - self._begun
            outcomes, self._outcomes = self._outcomes, []
        if outcomes:
            self._host.done(outcomes, spent_s)
        return spent_s

    def running_s(self) -> float:
        """See `Caller`."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def lasted_s(self) -> float:
        """See `Caller`. What follows the calls counts as well, such as waiting until the publisher has room."""
        return time.monotonic() - self._begun

    def hand_back(self) -> None:
        """See `Caller`."""
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
        """See `Caller`."""
        with self._lock:
            spent_s = self.running_s()
            if spent_s <= limit_s:
                return
            self._abandoned = True
            cancel_call(self._thread_id)
            group = self._groups[0]
        self._host.abandoned(self._caller)
        self.hand_back()
        self._host.failed(group, failure, spent_s)


class ThreadWorker(Worker):
    """Calls the model on a thread of its own: for one event after the other or, with `prepare`, for batches.

    The tries of a batch's events are counted when the worker takes them.
    """

    def __init__(self, host: WorkerHost, attempt: Try, prepare: Preparation | None = None) -> None:
        self._host = host
        self._prepare = prepare
        give_back = host.return_counted if prepare else host.return_uncounted
        self._calls = Calls(host, self, attempt, give_back)
        self._thread = guarded_thread(self._work, "worker", host.fail)

    def start(self) -> None:
        """See `Worker`."""
        self._thread.start()

    def running_s(self) -> float:
        """See `Caller`."""
        return self._calls.running_s()

    def lasted_s(self) -> float:
        """See `Caller`."""
        return self._calls.lasted_s()

    def hand_back(self) -> None:
        """See `Caller`."""
        self._calls.hand_back()

    def overrun(self, limit_s: float, failure: Failure) -> None:
        """See `Caller`."""
        self._calls.overrun(limit_s, failure)

    def is_alive(self) -> bool:
        """See `Caller`."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while groups := self._host.take(self):
            if self._prepare:
                groups = list(fit(groups, self._prepare, self._host))
            if self._calls.make(groups) is None:
                return
        self._host.remove_worker(self)


def fit(groups: Iterable[Group], prepare: Preparation, host: WorkerHost) -> Iterable[Group]:
    """Yield each group without the events that cannot be tried, and report those at once."""
    for group in groups:
        failures = [(event, prepare.begin(event)) for event in group]
        poison = [Outcome(event, failure=failure) for event, failure in failures if failure is not None]
        if poison:
            host.done(poison, 0.0)
        if len(poison) < len(group):
            yield [event for event, failure in failures if failure is None]


class WorkerPool(Protocol):
    """Makes workers, which can all call the model `name`."""

    @property
    def name(self) -> str:
        """The model's name, for dead letters and logs."""

    @property
    def version(self) -> str:
        """The model's version after its warm-up; empty if it is not known."""

    @property
    def in_batches(self) -> bool:
        """True if the workers call the model with several events."""

    def start_worker(self, host: WorkerHost, prepare: Preparation) -> Worker | None:
        """Return a new worker, not yet started; None if no other can be had now."""

    def inline(self, prepare: Preparation) -> Try | None:
        """Return a function with which any thread may try an event; None if only workers can."""


class Threads:
    """Threads that share one model; `in_batches` has them call its `predict_batch`, None if it has one."""

    def __init__(self, model: LoadedModel, *, in_batches: bool | None) -> None:
        """Raise `ModelLoadError` for a model without `predict_batch` that is to work in batches."""
        self.name = model.name
        self._version = model.version
        self._predict = model.predict
        self._predict_batch = batch_function(model, asked=in_batches)
        self.in_batches = self._predict_batch is not None

    @property
    def version(self) -> str:
        """See `WorkerPool`."""
        return self._version()

    def start_worker(self, host: WorkerHost, prepare: Preparation) -> Worker:
        """See `WorkerPool`."""
        if self._predict_batch:
            return ThreadWorker(host, BatchAttempts(self._predict_batch), prepare)
        return ThreadWorker(host, self._singly(prepare))

    def inline(self, prepare: Preparation) -> Try | None:
        """See `WorkerPool`. Only a worker can wait for a batch to fill."""
        return None if self._predict_batch else self._singly(prepare)

    def _singly(self, prepare: Preparation) -> Try:
        attempt = Attempts(self._predict, prepare)
        return lambda group: [attempt(group[0])]
