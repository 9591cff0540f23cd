"""Giving events to workers, singly or in batches, and their outcomes to the router."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from infertool.consumer.attempt import Preparation
from infertool.consumer.backlog import Backlog
from infertool.consumer.event import Event, Failure, Outcome
from infertool.consumer.tuning import BatchLimits, InlinePolicy, Workload
from infertool.consumer.watchdog import LateReports, Watchdog
from infertool.consumer.worker import Group, InlineCalls, Worker
from infertool.consumer.worker_pool import WorkerPool
from infertool.errors import InfertoolError

OnOutcomes = Callable[[Sequence[Outcome]], None]

# Hung calls cannot be ended. Past this many for each unit of concurrency the process is beyond help.
HUNG_LIMIT = 4


class ModelHangsError(InfertoolError):
    """So many calls of the model have hung that the process cannot go on."""


class Executor:
    """Up to `concurrency` workers, started when they are needed.

    A call that takes longer than `timeout_s` fails with `Timeout`. Without `batches` each event is a call of its own.
    A thread that brings events may have to try them itself; `on_stuck` is called when it is not back soon.
    """

    def __init__(
        self,
        worker_pool: WorkerPool,
        prepare: Preparation,
        workload: Workload,
        *,
        on_outcomes: OnOutcomes,
        on_tuned: Callable[[str, int], None],
        on_stuck: Callable[[], None],
        on_fatal: Callable[[InfertoolError], None],
    ) -> None:
        self._worker_pool = worker_pool
        self._prepare = prepare
        self._inline = worker_pool.inline(prepare)
        self._on_outcomes = on_outcomes
        self._on_tuned = on_tuned
        self._on_stuck = on_stuck
        self._on_fatal = on_fatal
        self._concurrency = workload.concurrency
        self._timeout_s = workload.timeout_s
        self._limit = workload.limit
        self._batches = workload.batches
        self._backlog = Backlog(workload.concurrency, workload.batches)
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # One worker at a time waits for its batch to fill; the others wait for their turn.
        self._filled = threading.Condition(lock)
        self._filling = False
        self._workers: set[Worker] = set()
        self._hung: list[Worker] = []
        self._idle = 0
        self._stopped = False
        self._ended = threading.Event()
        self._inline_policy = InlinePolicy()
        self._watchdog = Watchdog(self, workload.timeout_s)
        self._late_reports = LateReports(self.done)

    def start(self) -> None:
        """Start watching for calls that take too long."""
        if self._limit:
            self._on_tuned("concurrency", self._limit.value)
        if self._batches and self._batches.adapts:
            self._on_tuned("batch_size", self._batches.size)
        self._watchdog.start()
        self._late_reports.start()

    def submit(self, events: Iterable[Event]) -> None:
        """Queue events. The caller bounds how many are open."""
        self._queue(events, self._backlog.add)

    def run_or_submit(self, events: Sequence[Event]) -> None:
        """Try events in the calling thread while the model is quick and a worker's place is free; else queue them."""
        calls = self._begin_inline() if events else None
        if calls is None:
            self.submit(events)
            return
        spent_s = calls.run([event] for event in events)
        if spent_s is not None:
            self._inline_policy.measured(len(events), spent_s, time.monotonic())

    def stop(self, deadline: float) -> bool:
        """Drop what has not begun; wait until `deadline` (monotonic) for what has. True if nothing runs any more."""
        with self._changed:
            self._stopped = True
            self._backlog.clear()
            self._changed.notify_all()
            self._filled.notify_all()
            finished = self._changed.wait_for(lambda: not self._workers, max(0.0, deadline - time.monotonic()))
        reported = self._late_reports.finish(max(0.0, deadline - time.monotonic()))
        self._ended.set()
        self._watchdog.stop()
        return finished and reported

    def take(self, worker: Worker) -> list[Group]:
        """See `Employer`. Waits for it."""
        self._watchdog.release(worker)
        with self._changed:
            self._idle += 1
            while not (self._stopped or self._may_take()):
                self._changed.wait()
            self._idle -= 1
            groups = [] if self._stopped else self._next()
            if len(groups) > 1 or (groups and len(groups[0]) > 1):
                self._watchdog.hold(worker)
            return groups

    def done(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """See `Employer`. What ends after a stop's deadline is dropped: the broker has those events back."""
        if self._ended.is_set():
            return
        # A model that is away says nothing about its speed, nor does an event that it never saw.
        if spent_s and not any(outcome.is_held for outcome in outcomes):
            self._backlog.measured(len(outcomes), spent_s)
            if self._batches or self._limit:
                self._tune(outcomes, spent_s)
        self._on_outcomes(outcomes)

    def done_later(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """See `Employer`."""
        self._late_reports.put(outcomes, spent_s)

    def failed(self, group: Group, failure: Failure, spent_s: float) -> None:
        """See `Employer`. What happened to a group is held against none of its events."""
        if len(group) == 1:
            self.done_later([Outcome(group[0], failure=failure)], spent_s)
            return
        for event in group:
            event.alone = True
        self.return_counted(group)

    def return_uncounted(self, events: Iterable[Event]) -> None:
        """See `Employer`."""
        self._queue(events, self._backlog.add_first)

    def return_counted(self, events: Iterable[Event]) -> None:
        """See `Employer`."""
        events = list(events)
        for event in events:
            event.attempts -= 1
        self.return_uncounted(events)

    def abandoned(self, worker: Worker) -> None:
        """See `Employer`."""
        self.remove_worker(worker)
        self._hung = [w for w in [*self._hung, worker] if w.is_alive()]
        if len(self._hung) > HUNG_LIMIT * self._concurrency:
            self.fail(_hangs(len(self._hung), self._timeout_s))

    def remove_worker(self, worker: Worker) -> None:
        """See `Employer`."""
        self._watchdog.release(worker)
        with self._changed:
            self._workers.discard(worker)
            if self._stopped:
                self._changed.notify_all()
            elif self._backlog:
                self._call_workers()

    def has_stopped(self) -> bool:
        """See `Employer`."""
        return self._stopped

    def fail(self, error: InfertoolError) -> None:
        """See `Employer`."""
        self._on_fatal(error)

    def workers(self) -> list[Worker]:
        """See `Watched`."""
        with self._changed:
            return list(self._workers)

    def relieve(self, worker: Worker) -> None:
        """See `Watched`."""
        if not isinstance(worker, InlineCalls):
            worker.relieve()
            return
        self._watchdog.release(worker)
        if worker.running_s():
            self._inline_policy.refuted(time.monotonic())
        worker.relieve()  # first: what is read from now on comes behind it
        self._on_stuck()

    def _queue(self, events: Iterable[Event], add: Callable[[Iterable[Event]], None]) -> None:
        with self._changed:
            if self._stopped:
                return
            add(events)
            if self._filling:
                self._filled.notify()
            else:
                self._call_workers()

    def _may_take(self) -> bool:
        return bool(self._backlog) and not self._filling and not self._is_full()

    def _is_full(self) -> bool:
        return len(self._workers) - self._idle >= self._allowed()

    def _begin_inline(self) -> InlineCalls | None:
        # What adapts learns from calls that wait for each other.
        if self._inline is None or self._limit or not self._inline_policy.holds(time.monotonic()):
            return None
        with self._changed:
            if self._stopped or self._backlog or self._is_full():
                return None
            calls = InlineCalls(self, self._inline)
            self._workers.add(calls)
        self._watchdog.hold(calls)
        return calls

    def _call_workers(self) -> None:
        """Wake, or hire, as many workers as there is work for. Called with the lock."""
        wanted = -(-len(self._backlog) // self._backlog.share())
        self._changed.notify(wanted)
        for _ in range(min(wanted - self._idle, self._allowed() - len(self._workers))):
            worker = self._worker_pool.start_worker(self, self._prepare)
            if worker is None:
                return
            self._workers.add(worker)
            worker.start()

    def _allowed(self) -> int:
        return self._limit.value if self._limit else self._concurrency

    def _next(self) -> list[Group]:
        if self._batches is None:
            return self._backlog.chunk()
        self._fill(self._batches)
        if not self._backlog:
            return []
        batch = self._backlog.batch(self._batches.size)
        self._call_workers()
        return [batch]

    def _fill(self, batches: BatchLimits) -> None:
        left_s = batches.wait_s - (time.monotonic() - self._backlog.oldest_at())
        if left_s <= 0 or self._backlog.fills(batches.size):
            return
        self._filling = True
        self._filled.wait_for(lambda: self._stopped or self._backlog.fills(batches.size), left_s)
        self._filling = False

    def _tune(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        failures = [outcome for outcome in outcomes if outcome.failure and outcome.failure.retryable]
        for outcome in failures:
            outcome.event.alone = True  # so that it spoils no other batch
        with self._changed:
            if self._batches and self._batches.measured(len(outcomes), spent_s):
                self._on_tuned("batch_size", self._batches.size)
            each_s = spent_s / len(outcomes)
            if self._limit and self._limit.measured(each_s, failed=bool(failures), full=bool(self._backlog)):
                self._on_tuned("concurrency", self._limit.value)
                self._call_workers()


def _hangs(count: int, timeout_s: float) -> ModelHangsError:
    return ModelHangsError(
        f"{count} calls of the model have hung for longer than consume.timeout_s ({timeout_s:g} s)",
        advice="mend the model; threads cannot be ended from outside",
    )
