"""The executor: has events tried, by workers or on the calling thread, and reports the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from infertool.consumer.attempt import Event, Failure, Group, Outcome, Preparation
from infertool.consumer.batching.port import Batches
from infertool.consumer.guarded import Fail
from infertool.consumer.inline import InlineRuns
from infertool.consumer.isolation import Isolation, NoSuspects, Suspects
from infertool.consumer.tuning import Workload
from infertool.consumer.watchdog import OnOutcomes, Reports, Watchdog
from infertool.consumer.work_queue import CHUNK_S, ActiveWorkers, WorkQueue
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
    Of the events, `suspects` are tried with nothing else in progress.
    """

    def __init__(  # noqa: PLR0913  # one callback for each thing that it tells
        self,
        worker_pool: WorkerPool,
        prepare: Preparation,
        workload: Workload,
        *,
        on_outcomes: OnOutcomes,
        on_tuned: Callable[[str, int], None],
        on_stuck: Callable[[], None],
        on_fatal: Fail,
        on_batch: Callable[[int], None] | None = None,
        suspects: Suspects | None = None,
    ) -> None:
        self._suspects = suspects or NoSuspects()
        self._worker_pool = worker_pool
        self._prepare = prepare
        self._workload = workload
        self._adapts = bool(workload.batches or workload.limit)
        self._on_tuned = on_tuned
        self._queue = WorkQueue(workload.concurrency, workload.batches, Isolation(self._suspects), on_tuned=on_tuned)
        self._workers = ActiveWorkers(
            self._queue,
            self._new_worker,
            concurrency=workload.concurrency,
            limit=workload.limit,
            on_limit=lambda limit: on_tuned("concurrency", limit),
        )
        self._watchdog = Watchdog(workload.timeout_s, on_fatal)
        self._reports = Reports(on_outcomes, self._learn, on_fatal)
        self._host = _Host(self._queue, self._workers, self._watchdog, self._reports, workload, on_fatal)
        self._host.on_batch = on_batch if workload.batches else None
        # A limit learns nothing from calls of one thread, which wait for each other.
        attempt = None if workload.limit else worker_pool.inline(prepare.on_reader())
        self._inline = InlineRuns(self._host, attempt, self._workers, self._watchdog, on_late=on_stuck)

    def start(self) -> None:
        """Start the threads that watch and report."""
        if limit := self._workload.limit:
            self._on_tuned("concurrency", limit.value)
        self._queue.tell()
        self._watchdog.start(self._workers.callers)
        self._reports.start()

    def submit(self, events: Iterable[Event]) -> None:
        """Queue events for workers. The caller bounds the number of open events."""
        self._workers.submit(events)

    def run_or_submit(self, events: Sequence[Event]) -> None:
        """Try events in the calling thread if the model is quick and nothing waits; queue them otherwise."""
        if self._suspects.suspected or not self._inline.run(events):
            self.submit(events)

    def remove(self, is_wanted: Callable[[Event], bool]) -> list[Event]:
        """Remove and return the events that wait for workers and for which `is_wanted` is True."""
        return self._queue.remove(is_wanted)

    def room(self) -> int:
        """Return how many more events are to be submitted, so that no worker waits."""
        return self._workers.room()

    def tell_taken(self, on_taken: Callable[[], None]) -> None:
        """Have `on_taken` called whenever a worker has taken events."""
        self._workers.on_taken = on_taken

    def tell_returned(self, on_returned: Callable[[], None]) -> None:
        """Have `on_returned` called whenever events that a worker had, and did not try, wait again."""
        self._host.on_returned = on_returned

    @property
    def batches(self) -> Batches | None:
        """How batches are formed, None for single events."""
        return self._workload.batches

    def waiting(self) -> int:
        """Return how many events wait for a worker."""
        return len(self._queue)

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
        on_fatal: Fail,
    ) -> None:
        self._queue = queue
        self._workers = workers
        self._watchdog = watchdog
        self._in_batches = queue.in_batches
        self._timeout_s = workload.timeout_s
        self._most_hung = HUNG_LIMIT * workload.concurrency
        self._reports = reports
        self._most_waiting = workload.concurrency
        self.done_later = reports.report_later
        self.fail = on_fatal
        self.on_batch: Callable[[int], None] | None = None
        self.on_returned: Callable[[], None] | None = None

    def done(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """See `WorkerHost`. Of a slow model's many calls at once the outcomes are reported together, by one thread."""
        if len(outcomes) == 1 and spent_s > CHUNK_S and self._reports.waiting() < self._most_waiting:
            self._reports.report_later(outcomes, spent_s)
        else:
            self._reports.report(outcomes, spent_s)

    def take(self, worker: Caller) -> list[Group]:
        self._watchdog.release(worker)
        groups = self._workers.take(worker)
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
        if self.on_returned:
            self.on_returned()

    def return_counted(self, events: Iterable[Event]) -> None:
        events = list(events)
        for event in events:
            event.attempts -= 1
        self.return_uncounted(events)

    def call_ended(self, worker: Caller, outcomes: Sequence[Outcome]) -> None:
        if self._in_batches:
            self._queue.ended(worker)
            for started, (size, seconds) in _calls(outcomes).items():
                self._queue.timed(worker, size, started, seconds)

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


def _calls(outcomes: Sequence[Outcome]) -> dict[float, tuple[int, float]]:
    """Return the size and the time of each call, by its start. A call that failed may have ended early."""
    calls: dict[float, tuple[int, float]] = {}
    answered = {outcome.started for outcome in outcomes if outcome.failure is None}
    for outcome in outcomes:
        if outcome.started in answered:
            size, _ = calls.get(outcome.started, (0, 0.0))
            calls[outcome.started] = size + 1, outcome.processing_s
    return calls


def _hangs(count: int, timeout_s: float) -> ModelHangsError:
    return ModelHangsError(
        f"{count} calls of the model have hung for longer than consume.timeout_s ({timeout_s:g} s)",
        advice="correct the model: a call that does not end when it is cancelled cannot be ended from outside",
    )
