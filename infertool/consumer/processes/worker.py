"""A worker of the executor that has its events tried by a process of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import orjson

from infertool.consumer.attempt import Preparation
from infertool.consumer.backlog import Group
from infertool.consumer.event import Event, Failure, Outcome
from infertool.consumer.processes import wire
from infertool.consumer.processes.handle import GoneError, Handle
from infertool.consumer.worker import Worker, WorkerHost, fit, halves
from infertool.errors import ModelLoadError
from infertool.models.port import Cached

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

    def replace(self, old: Handle, host: WorkerHost) -> Handle | None:
        """Return a ready process in place of `old`; None when none is wanted any more. Raises `ModelLoadError`."""

    def tell(self, text: str) -> None:
        """Warn a person."""


class ProcessWorker(Worker):
    """A thread that waits for one process. When that dies, the event in work fails, and another takes its place."""

    def __init__(self, host: WorkerHost, pool: Pool, prepare: Preparation) -> None:
        self._host = host
        self._pool = pool
        self._prepare = prepare
        self._handle = pool.lend()
        self._lock = threading.Lock()
        # Groups that the process has, by their numbers, in the order in which it begins them; and those it will get.
        self._asked: dict[int, Group] = {}
        self._unasked: list[Group] = []
        self._begun = time.monotonic()
        self._since: float | None = None
        self._overrun: tuple[int, Failure] | None = None
        self._stray = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """See `Worker`."""
        self._thread.start()

    def is_alive(self) -> bool:
        """See `Worker`."""
        return self._thread.is_alive()

    def running_s(self) -> float:
        """See `Worker`."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def lasted_s(self) -> float:
        """See `Worker`."""
        return time.monotonic() - self._begun

    def hand_back(self) -> None:
        """See `Worker`. Outcomes are reported as they come."""
        with self._lock:
            numbers = self._handle.take_back() if self._asked else []
            if numbers and len(numbers) == len(self._asked):
                # The process has not begun. It keeps the first group, so that an answer will come.
                self._handle.permit(numbers[:1])
                del numbers[0]
            groups = [self._asked.pop(number) for number in numbers] + self._unasked
            self._unasked = []
        self._host.return_counted(chain.from_iterable(groups))

    def overrun(self, limit_s: float, failure: Failure) -> None:
        """See `Worker`. A process can be ended from outside."""
        with self._lock:
            if self.running_s() > limit_s and self._overrun is None:
                self._overrun = (next(iter(self._asked)), failure)
                self._handle.kill()

    def _run(self) -> None:
        try:
            while groups := self._host.take(self):
                if not self._work(groups):
                    break
            else:
                self._pool.give_back(self._handle)
        except ModelLoadError as error:
            self._host.fail(error)
        self._host.remove_worker(self)

    def _work(self, groups: Sequence[Group]) -> bool:
        """Have `groups` tried; return False when there is no process to go on with."""
        if not self._make_sure_of_process():
            self._host.return_uncounted(chain.from_iterable(groups))
            return False
        self._begun = time.monotonic()
        self._unasked = list(fit(groups, self._prepare, self._host))
        while self._ask():
            while self._asked:
                try:
                    leaving = self._report(self._handle.answers())
                except GoneError:
                    return self._died()
                if leaving:
                    self._return_unbegun()
                    return self._replace(_NOTICES[leaving])
                if self._is_strange():
                    self.hand_back()  # what has begun may still be answered
        if self._overrun:
            return self._replace(_NOTICES[""])
        return self._end_stranger() if self._is_strange() else True

    def _make_sure_of_process(self) -> bool:
        if not self._handle.wait(0):
            return True
        if self._handle.has_ended():
            return self._replace(f"{self._handle.ending()} with nothing in work")
        return self._end_stranger()  # it was asked nothing

    def _is_strange(self) -> bool:
        return self._stray or self._handle.garbled

    def _end_stranger(self) -> bool:
        self._handle.kill()
        return self._replace("was ended: it sent what is no answer to a call, which was dropped")

    def _ask(self) -> bool:
        """Give the process what is to be tried; return False when that is nothing."""
        with self._lock:
            groups, self._unasked = self._unasked, []
            numbers = self._handle.number(len(groups))
            self._asked = dict(zip(numbers, groups, strict=True))
            self._since = time.monotonic() if groups else None
        if groups:
            self._handle.ask(numbers, [[event.message.body for event in group] for group in groups])
        return bool(groups)

    def _report(self, answers: Sequence[wire.Answer]) -> str:
        """Report what became of groups; return why the process leaves, if it does."""
        outcomes: list[Outcome] = []
        spent_s, leaving = 0.0, ""
        with self._lock:
            for answer in answers:
                if not isinstance(answer, wire.Reply) or not (group := self._answered(answer)):
                    self._stray = True
                    continue
                self._since = None
                if answer.parts is None:
                    self._unasked += halves(group)
                else:
                    outcomes += map(_outcome, group, answer.parts)
                spent_s += answer.busy_s
                leaving = answer.leaving
        if outcomes:
            self._host.done(outcomes, spent_s)
        with self._lock:
            if self._asked and self._since is None:
                self._since = time.monotonic()
        return leaving

    def _answered(self, reply: wire.Reply) -> Group | None:
        """Remove and return the group that is answered; None for a reply that no group can have."""
        # The process begins them in this order.
        group = self._asked.get(reply.number) if next(iter(self._asked), None) == reply.number else None
        if group is None or (len(group) == 1 if reply.parts is None else len(reply.parts) != len(group)):
            return None
        return self._asked.pop(reply.number)

    def _died(self) -> bool:
        """Blame the event in work for the end of the process, and go on with another process."""
        spent_s = self.running_s()
        self._return_unbegun()
        with self._lock:
            in_work, self._asked = self._asked, {}
            self._since = None
        ending = self._handle.ending()
        for number, group in in_work.items():  # one, or none
            if self._overrun is None:
                self._host.failed(group, _death(group, ending), spent_s)
            elif number == self._overrun[0]:
                self._host.failed(group, self._overrun[1], spent_s)
            else:  # begun just before the end of the process, which was for another
                self._host.return_counted(group)
        return self._replace(_NOTICES[""] if self._overrun else ending)

    def _return_unbegun(self) -> None:
        with self._lock:
            numbers = self._handle.take_back()
            groups = [self._asked.pop(number) for number in numbers if number in self._asked] + self._unasked
            self._unasked = []
        self._host.return_counted(chain.from_iterable(groups))

    def _replace(self, notice: str) -> bool:
        if notice:
            self._pool.tell(f"worker process {self._handle.pid} {notice}; another takes its place")
        handle = self._pool.replace(self._handle, self._host)
        self._overrun = None
        self._stray = False
        if handle is None:
            return False
        self._handle = handle
        return True


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
