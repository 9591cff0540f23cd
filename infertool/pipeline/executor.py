"""Running the model on threads.

The seam for other executors is small: `submit` events, get their `Outcome`s in batches from worker threads, `stop`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from infertool.errors import InfertoolError
from infertool.pipeline.event import Event, Failure, Outcome
from infertool.pipeline.worker import Worker

Attempt = Callable[[Event], Outcome]
OnOutcomes = Callable[[Sequence[Outcome]], None]

# A worker takes as many events at once as fill this time, so that fast models do not pay a hand-off an event.
CHUNK_S = 0.002
LARGEST_CHUNK = 64
# Hung calls cannot be ended. Past this many for each unit of concurrency the process is beyond help.
HUNG_LIMIT = 4


class ModelHangsError(InfertoolError):
    """So many calls of the model have hung that the process cannot go on."""


class ThreadExecutor:
    """Up to `concurrency` worker threads, started when they are needed.

    A call that takes longer than `timeout_s` fails with `Timeout`; its thread is abandoned and replaced.
    """

    def __init__(
        self,
        attempt: Attempt,
        *,
        concurrency: int,
        timeout_s: float,
        on_outcomes: OnOutcomes,
        on_fatal: Callable[[InfertoolError], None],
    ) -> None:
        self._attempt = attempt
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._on_outcomes = on_outcomes
        self._on_fatal = on_fatal
        self._backlog: deque[Event] = deque()
        self._changed = threading.Condition()
        self._workers: set[Worker] = set()
        self._hung: list[Worker] = []
        self._idle = 0
        self._stopped = False
        self._ended = threading.Event()
        self._mean_s = 1.0
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start watching for calls that take too long."""
        self._watchdog.start()

    def submit(self, events: Iterable[Event]) -> None:
        """Queue events. The caller bounds how many are open."""
        with self._changed:
            if self._stopped:
                return
            self._backlog.extend(events)
            wanted = -(-len(self._backlog) // self._chunk())
            self._changed.notify(wanted)
            for _ in range(min(wanted - self._idle, self._concurrency - len(self._workers))):
                self._hire()

    def stop(self, deadline: float) -> bool:
        """Drop what has not begun; wait until `deadline` (monotonic) for what has. True if nothing runs any more."""
        with self._changed:
            self._stopped = True
            self._backlog.clear()
            self._changed.notify_all()
            finished = self._changed.wait_for(lambda: not self._workers, max(0.0, deadline - time.monotonic()))
        self._ended.set()
        return finished

    def take(self) -> list[Event]:
        """Return the next chunk for a worker, waiting for it; empty when the worker should end."""
        with self._changed:
            while not self._backlog and not self._stopped:
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return [self._backlog.popleft() for _ in range(min(self._chunk(), len(self._backlog)))]

    def done(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Report a worker's finished chunk."""
        self._mean_s += 0.2 * (spent_s / len(outcomes) - self._mean_s)
        self._on_outcomes(outcomes)

    def retire(self, worker: Worker) -> None:
        """Strike a worker that ends."""
        with self._changed:
            self._workers.discard(worker)
            self._changed.notify_all()

    def _chunk(self) -> int:
        if self._mean_s > CHUNK_S:
            return 1
        share = -(-len(self._backlog) // self._concurrency)
        return max(share, min(LARGEST_CHUNK, int(CHUNK_S / max(self._mean_s, 1e-6))))

    def _hire(self) -> None:
        worker = Worker(self, self._attempt)
        self._workers.add(worker)
        worker.start()

    def _watch(self) -> None:
        while not self._ended.wait(self._timeout_s / 10):
            with self._changed:
                overdue = [worker for worker in self._workers if worker.running_s() > self._timeout_s]
            for worker in overdue:
                self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        abandoned = worker.abandon()
        if abandoned is None:
            return
        event, rest = abandoned
        with self._changed:
            self._workers.discard(worker)
            self._hung = [w for w in [*self._hung, worker] if w.is_alive()]
        self.submit(rest)
        error = f"the model gave no result within {self._timeout_s:g} s"
        self._on_outcomes([Outcome(event, failure=Failure("infer", "Timeout", error, retryable=True))])
        if len(self._hung) > HUNG_LIMIT * self._concurrency:
            self._on_fatal(_hangs(len(self._hung), self._timeout_s))


def _hangs(count: int, timeout_s: float) -> ModelHangsError:
    return ModelHangsError(
        f"{count} calls of the model have hung for longer than consume.timeout_s ({timeout_s:g} s)",
        advice="mend the model; threads cannot be ended from outside",
    )
