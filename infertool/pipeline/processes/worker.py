"""A worker of the executor that has its events tried by a process of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import orjson

from infertool.errors import ModelLoadError
from infertool.models.port import Cached
from infertool.pipeline.attempt import Preparation
from infertool.pipeline.event import Event, Failure, Outcome
from infertool.pipeline.processes import wire
from infertool.pipeline.processes.handle import GoneError, Handle
from infertool.pipeline.worker import Employer, Group, WorkerThread

# What a person is told of a process that was ended for a timeout, or left by itself.
_NOTICES = {
    "": "was ended: a call of the model took longer than consume.timeout_s",
    "memory": "held more than consume.worker_memory_bytes",
    "tasks": "",
}
# An event is tried once more after it ended a worker process.
MOST_DEATHS = 2


class Pool(Protocol):
    """Where processes come from."""

    def lend(self) -> Handle:
        """Return a process that is ready."""

    def give_back(self, handle: Handle) -> None:
        """Take back a process that has nothing to do."""

    def replace(self, old: Handle, employer: Employer) -> Handle | None:
        """Return a ready process in place of `old`; None when none is wanted any more. Raises `ModelLoadError`."""

    def tell(self, text: str) -> None:
        """Warn a person."""


class ProcessWorker(WorkerThread):
    """The thread that waits for one process. When that dies, the event in work fails, and another takes its place."""

    def __init__(self, employer: Employer, pool: Pool, prepare: Preparation) -> None:
        super().__init__(name="worker", daemon=True)
        self._employer = employer
        self._pool = pool
        self._prepare = prepare
        self._handle = pool.lend()
        self._lock = threading.Lock()
        self._groups: deque[Group] = deque()
        self._since: float | None = None
        self._overrun: Failure | None = None

    def run(self) -> None:
        """Work until there is nothing more to take."""
        try:
            while groups := self._employer.take():
                if not self._work(groups):
                    break
            else:
                self._pool.give_back(self._handle)
        except ModelLoadError as error:
            self._employer.fail(error)
        self._employer.retire(self)

    def running_s(self) -> float:
        """See `Worker`."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def overrun(self, failure: Failure) -> None:
        """See `Worker`. A process can be ended from outside."""
        with self._lock:
            if self._since is not None and self._overrun is None:
                self._overrun = failure
                self._handle.kill()

    def _work(self, groups: Sequence[Group]) -> bool:
        """Have `groups` tried; False when there is no process to go on with."""
        if self._handle.has_ended() and not self._replace(f"{self._handle.ending()} with nothing in work"):
            self._employer.submit(chain.from_iterable(groups))
            return False
        self._groups = deque(filter(None, map(self._fit, groups)))
        if self._groups:
            self._since = time.monotonic()
            self._handle.ask([[event.message.body for event in group] for group in self._groups])
        leaving = ""
        while self._groups and not (leaving or self._overrun):
            self._since = time.monotonic()
            try:
                answers = self._handle.answers()
            except GoneError:
                return self._died()
            leaving = self._report([answer for answer in answers if isinstance(answer, wire.Reply)])
        if leaving or self._overrun:
            self._employer.put_back(self._groups)
            return self._replace(_NOTICES[leaving])
        return True

    def _fit(self, group: Group) -> Group:
        """Return the events of a group that can be tried, and report the others."""
        failures = [(event, self._prepare(event)) for event in group]
        poison = [Outcome(event, failure=failure) for event, failure in failures if failure is not None]
        if poison:
            self._employer.done(poison, 0.0)
        return [event for event, failure in failures if failure is None]

    def _report(self, replies: Sequence[wire.Reply]) -> str:
        with self._lock:
            self._since = None
        outcomes = [each for reply in replies for each in _outcomes(self._groups.popleft(), reply)]
        if outcomes:
            self._employer.done(outcomes, sum(reply.busy_s for reply in replies))
        return replies[-1].leaving if replies else ""

    def _died(self) -> bool:
        with self._lock:
            spent_s, self._since = self.running_s(), None
        group, *rest = self._groups
        self._employer.put_back(rest)
        ending = self._handle.ending()
        self._employer.failed(group, self._overrun or _death(group, ending), spent_s)
        return self._replace(_NOTICES[""] if self._overrun else ending)

    def _replace(self, notice: str) -> bool:
        if notice:
            self._pool.tell(f"worker process {self._handle.pid} {notice}; another takes its place")
        self._overrun = None
        handle = self._pool.replace(self._handle, self._employer)
        if handle is None:
            return False
        self._handle = handle
        return True


def _outcomes(group: Group, reply: wire.Reply) -> list[Outcome]:
    return [_outcome(event, part) for event, part in zip(group, reply.parts, strict=True)]


def _outcome(event: Event, part: wire.Part) -> Outcome:
    if part.failure is not None:
        return Outcome(event, failure=part.failure)
    result = orjson.Fragment(part.result)
    return Outcome(event, Cached(result) if part.cached else result, part.processing_s)


def _death(group: Group, ending: str) -> Failure:
    for event in group:
        event.deaths += 1
    error = f"the worker process {ending} while this event was in work"
    return Failure("infer", "WorkerDied", error, retryable=max(event.deaths for event in group) < MOST_DEATHS)
