"""The worker processes of a consumer: started together, replaced one by one, ended together; and their workers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from types import TracebackType
from typing import Self

from infertool.codec import JSON
from infertool.consumer.attempt import Encoded, Event, Failure, Group, Outcome, Preparation
from infertool.consumer.batch_calls import in_parts
from infertool.consumer.documents import unencodable
from infertool.consumer.guarded import guarded_thread
from infertool.consumer.processes import wire
from infertool.consumer.processes.devices import NO_DEVICE, Device
from infertool.consumer.processes.process import GoneError, WorkerProcess
from infertool.consumer.worker import Try, Worker, WorkerHost, fit
from infertool.errors import ModelLoadError
from infertool.models.port import Cached
from infertool.net.timing import FullJitter
from infertool.secret import mask_url

# Longest time for processes to close their models. Seconds.
CLOSE_S = 10.0
# Tries in a row to start a process in place of another.
MOST_STARTS = 5
# A process that takes another's place may take this time to be ready, or this many times that of the first ones if that
# is more. A `warm_up` that hangs is found so. Seconds.
LONG_START_S = 60.0
SLOWER_STARTS = 10
START_BACKOFF = FullJitter(base_s=0.2, cap_s=2.0)
# Why a process is replaced, for warnings: by the reason with which it leaves; "" for one ended by a timeout.
_NOTICES = {
    "": "was ended: a call of the model took longer than consume.timeout_s",
    "memory": "held more than consume.worker_memory_bytes",
    "tasks": "",
}
# An event that ended this many worker processes is not tried again.
MOST_DEATHS = 2


class Processes:
    """A `WorkerPool` of `count` processes, which are ready when the block begins. Raises `ModelLoadError`.

    `warn` is called with a text when a process is replaced. `devices` are those of the processes, one for each.
    """

    def __init__(
        self, config: wire.WorkerConfig, count: int, warn: Callable[[str], None], devices: Sequence[Device] = ()
    ) -> None:
        self._config = config
        self._devices = devices or [NO_DEVICE] * count
        self.warn = warn
        self._lock = threading.Lock()
        self._processes: set[WorkerProcess] = set()
        self._idle: deque[WorkerProcess] = deque()
        self._closed = False
        self._first_start_s = 0.0
        self.name = self.version = ""
        self.in_batches = False

    def __enter__(self) -> Self:
        began = time.monotonic()
        try:
            processes = [self._start(device) for device in self._devices]
            for process in processes:
                if ready := process.wait_ready(lambda: True):
                    self.name, self.version, self.in_batches = ready.name, ready.version, ready.in_batches
        except BaseException:
            for process in self._processes:
                process.discard()
            raise
        self._first_start_s = time.monotonic() - began
        self._idle.extend(processes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the processes close their models; those still in a call are killed."""
        with self._lock:
            self._closed = True
        idle = list(self._idle)
        for process in self._processes.difference(idle):
            process.kill()
            process.exit_code()
        for process in idle:
            process.leave()
        deadline = time.monotonic() + CLOSE_S
        for process in idle:
            self._finish(process, deadline)

    def start_worker(self, host: WorkerHost, prepare: Preparation) -> Worker | None:
        """See `infertool.consumer.worker.WorkerPool`."""
        return ProcessWorker(host, self, prepare) if self._idle else None

    def inline(self, prepare: Preparation) -> Try | None:  # noqa: ARG002  (the port)
        """See `infertool.consumer.worker.WorkerPool`: only a process has the model."""
        return None

    def borrow(self) -> WorkerProcess:
        """Return a process that is ready, for one worker."""
        return self._idle.popleft()

    def give_back(self, process: WorkerProcess) -> None:
        """Take back a process that is ready."""
        self._idle.append(process)

    def replace(self, old: WorkerProcess, host: WorkerHost) -> WorkerProcess | None:
        """Return a ready process in place of `old`; None if `host` has stopped.

        Raises `ModelLoadError` after `MOST_STARTS` tries.
        """
        self._finish(old, time.monotonic() + CLOSE_S)
        for attempt in range(1, MOST_STARTS + 1):
            try:
                with self._lock:
                    if self._closed or host.has_stopped():
                        return None
                    new = self._start(old.device)
                ready = self._wait_ready(new, host)
            except ModelLoadError as error:
                if attempt == MOST_STARTS:
                    raise
                self.warn(f"no worker process could be started: {error.what}; trying again")
                time.sleep(START_BACKOFF.wait(attempt))
                continue
            if ready and ready.version != self.version:
                self.warn(
                    f"a new worker process has version {ready.version or 'none'} of model {self.name}, and results "
                    f"say {self.version or 'none'}: restart the consumer"
                )
            return new if ready else None
        return None

    def _start(self, device: Device) -> WorkerProcess:
        try:
            process = WorkerProcess(self._config, device)
        except OSError as error:
            spec = mask_url(self._config.model.spec)
            raise ModelLoadError(
                f"model {spec} cannot be loaded: the system starts no worker process: {error.strerror}",
                spec=spec,
                advice="look at the limits of memory, processes and open files (ulimit -a)",
            ) from error
        self._processes.add(process)
        return process

    def _wait_ready(self, new: WorkerProcess, host: WorkerHost) -> wire.Ready | None:
        try:
            limit_s = max(LONG_START_S, SLOWER_STARTS * self._first_start_s)
            return new.wait_ready(lambda: not host.has_stopped(), limit_s)
        except ModelLoadError:
            self._forget(new)
            raise

    def _finish(self, process: WorkerProcess, deadline: float) -> None:
        if error := process.closing_error(deadline):
            self.warn(f"closing model {self.name} failed: {error}")
        self._forget(process)

    def _forget(self, process: WorkerProcess) -> None:
        process.discard()
        self._processes.discard(process)


class ProcessWorker(Worker):
    """A thread that waits for one process. When that dies, the event in progress fails, and another takes its place."""

    def __init__(self, host: WorkerHost, pool: Processes, prepare: Preparation) -> None:
        self._host = host
        self._pool = pool
        self._prepare = prepare
        self._process = pool.borrow()
        self._lock = threading.Lock()
        # Groups that the process has, by number, in the order in which it begins them; and groups not yet sent to it.
        self._asked: dict[int, Group] = {}
        self._unasked: list[Group] = []
        self._begun = time.monotonic()
        self._since: float | None = None
        self._overrun: tuple[int, Failure] | None = None
        self._has_strayed = False
        self._thread = guarded_thread(self._run, "worker", host.fail)

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
            numbers = self._process.take_back() if self._asked else []
            if numbers and len(numbers) == len(self._asked):
                # The process has not begun. It keeps the first group, so that an answer will come.
                self._process.permit(numbers[:1])
                del numbers[0]
            groups = [self._asked.pop(number) for number in numbers] + self._unasked
            self._unasked = []
        self._host.return_counted(chain.from_iterable(groups))

    def overrun(self, limit_s: float, failure: Failure) -> None:
        """See `Worker`. A process can be ended from outside."""
        with self._lock:
            if self._asked and self.running_s() > limit_s and self._overrun is None:
                self._overrun = (next(iter(self._asked)), failure)
                self._process.kill()

    def _run(self) -> None:
        try:
            while groups := self._host.take(self):
                if not self._work(groups):
                    break
            else:
                self._pool.give_back(self._process)
        except ModelLoadError as error:
            self._host.fail(error)
        self._host.remove_worker(self)

    def _work(self, groups: Sequence[Group]) -> bool:
        """Send `groups` to the process and report their outcomes. Returns False if no process is left."""
        if not self._ensure_process():
            self._host.return_uncounted(chain.from_iterable(groups))
            return False
        self._begun = time.monotonic()
        self._unasked = list(fit(groups, self._prepare, self._host))
        while self._ask():
            while self._asked:
                try:
                    leaving = self._report(self._process.answers())
                except GoneError:
                    return self._died()
                if leaving:
                    self._return_unbegun()
                    return self._replace(_NOTICES[leaving])
                if self._is_out_of_step():
                    self.hand_back()  # the call in progress may still be answered
        if self._overrun:
            return self._replace(_NOTICES[""])
        return self._end_out_of_step() if self._is_out_of_step() else True

    def _ensure_process(self) -> bool:
        if not self._process.wait(0):
            return True
        if self._process.has_ended():
            return self._replace(f"{self._process.ending()} with nothing in work")
        return self._end_out_of_step()  # it has sent an answer to no request

    def _is_out_of_step(self) -> bool:
        return self._has_strayed or self._process.garbled

    def _end_out_of_step(self) -> bool:
        self._process.kill()
        return self._replace("was ended: it sent what is no answer to a call, which was dropped")

    def _ask(self) -> bool:
        """Send the process the groups that wait. Returns False if there are none."""
        with self._lock:
            groups, self._unasked = self._unasked, []
            numbers = self._process.number(len(groups))
            self._asked = dict(zip(numbers, groups, strict=True))
            self._since = time.monotonic() if groups else None
        if groups:
            self._process.ask(numbers, groups)
        return bool(groups)

    def _report(self, answers: Sequence[wire.Answer]) -> str:
        """Report the outcomes of groups; return the reason with which the process leaves, if it does."""
        outcomes: list[Outcome] = []
        spent_s, leaving = 0.0, ""
        with self._lock:
            for answer in answers:
                if not isinstance(answer, wire.Reply) or not (group := self._answered(answer)):
                    self._has_strayed = True
                    continue
                self._since = None
                if isinstance(answer.parts, int):
                    self._unasked += in_parts(group, answer.parts)
                else:
                    outcomes += map(_outcome, group, answer.parts)
                spent_s += answer.busy_s
                leaving = answer.leaving
        if not self._asked:
            self._host.call_ended(self, outcomes)
        if outcomes:
            self._host.done(outcomes, spent_s)
        with self._lock:
            if self._asked and self._since is None:
                self._since = time.monotonic()
        return leaving

    def _answered(self, reply: wire.Reply) -> Group | None:
        """Remove and return the group that `reply` answers; None if it answers none."""
        # The process begins them in this order.
        group = self._asked.get(reply.number) if next(iter(self._asked), None) == reply.number else None
        if group is None or not _fits(reply, group):
            return None
        return self._asked.pop(reply.number)

    def _died(self) -> bool:
        """Count the end of the process against the event in progress, and go on with another process."""
        spent_s = self.running_s()
        self._return_unbegun()
        with self._lock:
            in_progress, self._asked = self._asked, {}
            self._since = None
        ending = self._process.ending()
        for number, group in in_progress.items():  # one at most
            if self._overrun is None:
                self._host.failed(group, _death(group, ending), spent_s)
            elif number == self._overrun[0]:
                self._host.failed(group, self._overrun[1], spent_s)
            else:  # begun just before the process was ended for another group
                self._host.return_counted(group)
        return self._replace(_NOTICES[""] if self._overrun else ending)

    def _return_unbegun(self) -> None:
        with self._lock:
            numbers = self._process.take_back()
            groups = [self._asked.pop(number) for number in numbers if number in self._asked] + self._unasked
            self._unasked = []
        self._host.return_counted(chain.from_iterable(groups))

    def _replace(self, notice: str) -> bool:
        if notice:
            device = self._process.device.name
            on = f" on device {device}" if device else ""
            self._pool.warn(f"worker process {self._process.pid}{on} {notice}; another takes its place")
        process = self._pool.replace(self._process, self._host)
        self._overrun = None
        self._has_strayed = False
        if process is None:
            return False
        self._process = process
        return True


def _fits(reply: wire.Reply, group: Group) -> bool:
    if isinstance(reply.parts, int):
        return 0 < reply.parts < len(group)
    return len(reply.parts) == len(group)


def _outcome(event: Event, part: wire.Part) -> Outcome:
    if part.failure is not None:
        return Outcome(event, None, part.processing_s, part.failure, part.started)
    try:
        result = Encoded(part.result, part.is_object) if event.codec is JSON else event.codec.decode(part.result)
    except ValueError as error:  # MessagePack can be written that we do not read, such as extension types
        return Outcome(event, None, part.processing_s, unencodable(error), part.started)
    return Outcome(event, Cached(result) if part.cached else result, part.processing_s, None, part.started)


def _death(group: Group, ending: str) -> Failure:
    for event in group:
        event.deaths += 1
    error = f"the worker process {ending} while this event was in progress"
    return Failure("infer", "WorkerDied", error, retryable=max(event.deaths for event in group) < MOST_DEATHS)
