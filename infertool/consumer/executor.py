"""The executor: has events tried, by workers or on the calling thread, and reports the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from infertool.consumer.attempt import Event, Failure, Group, Outcome, Preparation
from infertool.consumer.inline import InlineRuns
from infertool.consumer.tuning import Workload
from infertool.consumer.watchdog import OnOutcomes, Reports, Watchdog
from infertool.consumer.work_queue import ActiveWorkers, WorkQueue
from infertool.consumer.worker import Caller, Worker, WorkerPool
from infertool.errors import InfertoolError
from infertool.telemetry.signals import Ticks

# Hung calls cannot be ended. With more than this number for each unit of concurrency, the run ends.
HUNG_LIMIT = 4


class ModelHangsError(InfertoolError):
    """Too many calls of the model have hung for the process to go on."""


class Executor:
    """Tries events with up to `workload.concurrency` workers of `worker_pool`, which start when they are needed.

    A call that takes longer than `workload.timeout_s` fails with `Timeout`. Without `workload.batches` each event is a
    call of its own. `on_stuck` is called when a thread in `run_or_submit` does not return soon; `on_fatal` when the run
    cannot go on. `on_tuned` gets the name and the new value of a number that adapts; `on_batch` the size of each batch.
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
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._worker_pool = worker_pool
        self._prepare = prepare
        self._workload = workload
        self._adapts = bool(workload.batches or workload.limit)
        self._on_tuned = on_tuned
        self._queue = WorkQueue(
            workload.concurrency, workload.batches, on_batch_size=lambda size: on_tuned("batch_size", size)
        )
        self._workers = ActiveWorkers(
            self._queue,
            self._new_worker,
            concurrency=workload.concurrency,
            limit=workload.limit,
            on_limit=lambda limit: on_tuned("concurrency", limit),
        )
        self._watchdog = Watchdog(workload.timeout_s)
        self._reports = Reports(on_outcomes, self._learn)
        self._host = _Host(self._queue, self._workers, self._watchdog, self._reports, workload, on_fatal)
        self._host.on_batch = on_batch if workload.batches else None
        # A limit learns nothing from calls of one thread, which wait for each other.
        attempt = None if workload.limit else worker_pool.inline(prepare.on_reader())
        self._inline = InlineRuns(self._host, attempt, self._workers, self._watchdog, on_late=on_stuck)

    def start(self) -> None:
        """Start the threads that watch and report."""
        limit, batches = self._workload.limit, self._workload.batches
        if limit:
            self._on_tuned("concurrency", limit.value)
        if batches and batches.adapts:
            self._on_tuned("batch_size", batches.size)
        self._watchdog.start(self._workers.callers)
        self._reports.start()

    def submit(self, events: Iterable[Event]) -> None:
        """Queue events for workers. The caller bounds the number of open events."""
        self._workers.submit(events)

    def run_or_submit(self, events: Sequence[Event]) -> None:
        """Try events in the calling thread if the model is quick and nothing waits; queue them otherwise."""
        if not self._inline.run(events):
            self.submit(events)

    def ticks(self) -> Ticks:
        """Return when the watchdog looked last, and how long the longest call has taken."""
        longest = max((caller.running_s() for caller in self._workers.callers()), default=0.0)
        return Ticks(None, self._watchdog.silent_s(), longest, self._workload.timeout_s)

    def stop(self, deadline: float) -> bool:
        """Drop events not begun, wait until `deadline` (monotonic) for the others. Return True if nothing runs on."""
        self._queue.stop()
        finished = self._workers.wait_until_ended(deadline)
        reported = self._reports.stop(deadline)
        self._watchdog.stop()
        return finished and reported

    def _new_worker(self) -> Worker | None:
        return self._worker_pool.start_worker(self._host, self._prepare)

    def _learn(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Adapt chunks, batches and concurrency to the time that the model took."""
        self._queue.measured(len(outcomes), spent_s)
        if self._adapts:
            failed = [outcome for outcome in outcomes if outcome.failure and outcome.failure.retryable]
            for outcome in failed:
                outcome.event.alone = True  # so that it spoils no other batch
            self._workers.measured(spent_s / len(outcomes), failed=bool(failed))


class _Host:
    """See `WorkerHost`: connects the workers with the parts of the executor."""

    def __init__(
        self,
        queue: WorkQueue,
        workers: ActiveWorkers,
        watchdog: Watchdog,
        reports: Reports,
        workload: Workload,
        on_fatal: Callable[[InfertoolError], None],
    ) -> None:
        self._queue = queue
        self._workers = workers
        self._watchdog = watchdog
        self._timeout_s = workload.timeout_s
        self._most_hung = HUNG_LIMIT * workload.concurrency
        self.done = reports.report
        self.done_later = reports.report_later
        self.fail = on_fatal
        self.on_batch: Callable[[int], None] | None = None

    def take(self, worker: Caller) -> list[Group]:
        self._watchdog.release(worker)
        groups = self._workers.take()
        if len(groups) > 1 or (groups and len(groups[0]) > 1):
            self._watchdog.hold(worker)
        if self.on_batch:
            for group in groups:
                self.on_batch(len(group))
        return groups

    def failed(self, group: Group, failure: Failure, spent_s: float) -> None:
        """See `WorkerHost`. The failure of a call for several events counts against none of them."""
        if len(group) == 1:
            self.done_later([Outcome(group[0], failure=failure)], spent_s)
            return
        for event in group:
            event.alone = True
        self.return_counted(group)

    def return_uncounted(self, events: Iterable[Event]) -> None:
        self._workers.submit(events, first=True)

    def return_counted(self, events: Iterable[Event]) -> None:
        events = list(events)
        for event in events:
            event.attempts -= 1
        self.return_uncounted(events)

    def abandoned(self, worker: Caller) -> None:
        self._watchdog.release(worker)
        hung = self._workers.abandon(worker)
        if hung > self._most_hung:
            self.fail(_hangs(hung, self._timeout_s))

    def remove_worker(self, worker: Caller) -> None:
        self._watchdog.release(worker)
        self._workers.remove(worker)

    def has_stopped(self) -> bool:
        return self._queue.stopped


def _hangs(count: int, timeout_s: float) -> ModelHangsError:
    return ModelHangsError(
        f"{count} calls of the model have hung for longer than consume.timeout_s ({timeout_s:g} s)",
        advice="mend the model; threads cannot be ended from outside",
    )
