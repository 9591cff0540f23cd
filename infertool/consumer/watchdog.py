"""Watching calls of the model: those that take longer than their kind hold up no other event, and end in the end."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from infertool.consumer.event import Failure, Outcome
from infertool.consumer.worker import Worker

# A worker that has been busy with the events it took for longer than this gives back those not begun. Seconds.
RELIEF_S = 0.02

Report = Callable[[Sequence[Outcome], float], None]


class Watched(Protocol):
    """Who has workers."""

    def workers(self) -> list[Worker]:
        """Return all workers."""

    def relieve(self, worker: Worker) -> None:
        """Let nothing wait for the current call of `worker`."""


class Watchdog:
    """A thread that looks after workers.

    Workers that hold several events are looked at every 20 ms, the others a few times within `timeout_s`.
    """

    def __init__(self, executor: Watched, timeout_s: float) -> None:
        self._executor = executor
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._holders: set[Worker] = set()
        self._roused = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End once no worker holds several events."""
        self._ended = True
        self._roused.set()

    def hold(self, worker: Worker) -> None:
        """Note that `worker` holds events that must not wait for each other."""
        with self._lock:
            self._holders.add(worker)
        if not self._roused.is_set():
            self._roused.set()

    def release(self, worker: Worker) -> None:
        """Note that `worker` holds no event any more, or one alone."""
        if worker in self._holders:
            with self._lock:
                self._holders.discard(worker)

    def _run(self) -> None:
        failure = Failure("infer", "Timeout", f"the model gave no result within {self._timeout_s:g} s", retryable=True)
        while self._holders or not self._ended:
            if not self._holders:
                self._roused.wait(self._timeout_s / 10)
                self._roused.clear()
            time.sleep(RELIEF_S)
            with self._lock:
                late = [worker for worker in self._holders if worker.lasted_s() > RELIEF_S]
            for worker in late:
                self._executor.relieve(worker)
            for worker in self._executor.workers():
                if worker.running_s() > self._timeout_s:
                    worker.overrun(self._timeout_s, failure)


class LateReports:
    """A thread that reports outcomes for those who must not wait for room at Phoenix."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._reports: queue.SimpleQueue[tuple[Sequence[Outcome], float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="late-reports", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Report soon."""
        self._reports.put((outcomes, spent_s))

    def finish(self, timeout_s: float) -> bool:
        """Report what is there and end; False if that takes longer than `timeout_s`."""
        self._reports.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (report := self._reports.get()) is not None:
            self._report(*report)
