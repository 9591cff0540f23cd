"""An executor under test, and what came out of it."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from infertool.brokers.port import Move, Transaction
from infertool.consumer.attempt import Decoding, Event, Failure, Outcome, Preparation, Tried
from infertool.consumer.executor import Executor
from infertool.consumer.isolation import Suspects
from infertool.consumer.tuning import Workload
from infertool.consumer.worker import WorkerPool
from infertool.message import Message
from tests.support.messages import message

LONG = 240.0


class Bench:
    """Gives events to an executor and notes their outcomes. Events are numbered by `n`, over all `submit`s."""

    def __init__(
        self,
        worker_pool: WorkerPool,
        *,
        concurrency: int = 2,
        timeout_s: float = LONG,
        suspects: Suspects | None = None,
        **tuning: Any,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.fatal: list[BaseException] = []
        self.stuck = threading.Semaphore(0)
        self.tuned: list[tuple[str, int]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        prepare = Preparation(Decoding(1000), lambda _event: None)
        self.executor = Executor(
            worker_pool,
            prepare,
            Workload(concurrency, timeout_s, **tuning),
            on_outcomes=self._take,
            on_tuned=lambda name, value: self.tuned.append((name, value)),
            on_fatal=self.fatal.append,
            on_stuck=self.stuck.release,
            suspects=suspects,
        )
        self.executor.start()

    def _take(self, outcomes: Sequence[Outcome]) -> None:
        with self._changed:
            self.outcomes.extend(outcomes)
            self._changed.notify_all()

    def submit(self, count: int, **fields: object) -> list[Event]:
        """Submit `count` events with these fields."""
        events = self.events(count, **fields)
        self.executor.submit(events)
        return events

    def events(self, count: int, **fields: object) -> list[Event]:
        """Return `count` events with these fields."""
        return [
            Event(message(json.dumps({"n": n, **fields}).encode()), str(n))
            for n in itertools.islice(self._numbers, count)
        ]

    def submit_all(self, payloads: Sequence[dict[str, object]]) -> list[Event]:
        """Submit these events together."""
        events = [Event(message(json.dumps(payload).encode()), str(n)) for n, payload in enumerate(payloads)]
        self.executor.submit(events)
        return events

    def wait(self, count: int) -> list[Outcome]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.outcomes) >= count, LONG), self.outcomes
        return self.outcomes

    def again(self, outcome: Outcome) -> Outcome:
        """Try an event again, as the router would; return what came of it."""
        with self._changed:
            self.outcomes.clear()
        self.executor.submit([outcome.event])
        return self.wait(1)[0]

    def wait_running(self) -> None:
        """Wait until a call of the model has begun, and not ended."""
        wait_until(lambda: any(worker.running_s() for worker in self.executor._workers.callers()))

    def wait_stopped(self) -> None:
        """Wait until a stop has begun, which another thread makes."""
        wait_until(lambda: self.has_stopped)

    @property
    def has_stopped(self) -> bool:
        return self.executor._queue.stopped

    def stop(self, within_s: float = LONG) -> bool:
        return self.executor.stop(time.monotonic() + within_s)


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for a condition that nothing tells of."""
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


class OnlyAcks:
    """A subscription that takes acks, and is asked for nothing else."""

    def ack(self, messages: Sequence[Message]) -> None:
        pass

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        raise NotImplementedError

    def move(self, moves: Sequence[Move], timeout_s: float) -> None:
        raise NotImplementedError

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> Transaction:
        raise NotImplementedError


def failure_of(failed: Outcome | Tried) -> Failure:
    """Return why a try failed that did."""
    assert failed.failure is not None
    return failed.failure


def failures(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return the error types of those that failed, by event id."""
    return {outcome.event.event_id: outcome.failure.error_type for outcome in outcomes if outcome.failure}
