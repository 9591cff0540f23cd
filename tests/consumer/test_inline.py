"""Events that the thread which brings them tries itself, because the model is quick: until it is not."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infertool.consumer.attempt import Event, Outcome
from infertool.consumer.batching.port import FixedBatches
from infertool.consumer.executor import HUNG_LIMIT
from infertool.consumer.tuning import AdaptiveLimit, InlinePolicy
from infertool.consumer.worker import Threads
from infertool.models.port import LoadedModel
from tests.consumer.harness import LONG, Bench


class Model:
    """Quick, but for events that say `holds`: those wait for `release`. Notes which thread tried what."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.holding = threading.Semaphore(0)
        self.threads: dict[int, str] = {}
        self.slow_s = 0.0
        self.together = 0
        self.most_together = 0

    def __call__(self, payload: dict[str, Any]) -> str:
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        self.threads[payload["n"]] = threading.current_thread().name
        if payload.get("holds"):
            self.holding.release()
            self.release.wait(LONG)
        if self.slow_s:
            time.sleep(self.slow_s)
        self.together -= 1
        return "done"

    def batch(self, payloads: Sequence[dict[str, Any]]) -> list[str]:
        return [self(payload) for payload in payloads]


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.release.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A thread that brings events, and may get stuck."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        yield pool


def bench_of(model: Model, *, in_batches: bool = False, **options: Any) -> Bench:
    return Bench(Threads(LoadedModel("test", "test", model, model.batch), in_batches=in_batches), **options)


def counts(bench: Bench, events: list[Event]) -> set[int]:
    """Return how often the events got an outcome."""
    found = Counter(outcome.event.event_id for outcome in bench.outcomes)
    return {found[event.event_id] for event in events}


def test_a_quick_model_is_asked_by_who_brings_the_events(model: Model) -> None:
    bench = bench_of(model)
    for turn in range(1, 100):  # a busy machine may take this thread away for so long that it is handed off
        model.threads.clear()
        bench.executor._inline._policy = InlinePolicy()
        events = bench.events(100)
        bench.executor.run_or_submit(events)
        without_waiting = counts(bench, events)
        bench.wait(100 * turn)
        if set(model.threads.values()) == {threading.current_thread().name}:
            break
    assert set(model.threads.values()) == {threading.current_thread().name}
    assert without_waiting == {1}
    assert bench.stop()


def test_a_model_that_turned_out_to_be_slow_is_asked_by_workers(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.consumer.tuning.SHORTEST_PAUSE_S", 1000.0)
    model.slow_s = 0.001
    bench = bench_of(model)
    events = bench.events(100)
    bench.executor.run_or_submit(events)
    bench.wait(100)
    model.threads.clear()
    more = bench.events(50)
    bench.executor.run_or_submit(more)
    bench.wait(150)
    assert counts(bench, [*events, *more]) == {1}
    assert set(model.threads.values()) == {"worker"}
    assert bench.stop()


@pytest.mark.parametrize(
    "tuning", [{"batches": FixedBatches(16, 0.0)}, {"limit": AdaptiveLimit(4)}], ids=["batches", "limit"]
)
def test_what_batches_or_adapts_is_left_to_workers(model: Model, tuning: dict[str, Any]) -> None:
    bench = bench_of(model, in_batches="batches" in tuning, **tuning)
    bench.executor.run_or_submit(bench.events(100))
    bench.wait(100)
    assert set(model.threads.values()) == {"worker"}
    assert bench.stop()


def test_events_behind_others_wait_their_turn(model: Model) -> None:
    bench = bench_of(model, concurrency=1)
    held = bench.events(1, holds=True)
    bench.executor.submit(held)
    assert model.holding.acquire(timeout=LONG)
    bench.executor.run_or_submit(bench.events(10))  # would block here for ever
    assert not bench.outcomes
    model.release.set()
    bench.wait(11)
    assert model.most_together == 1
    assert bench.stop()


def test_who_brings_events_counts_as_one_of_those_who_call(model: Model, pool: ThreadPoolExecutor) -> None:
    bench = bench_of(model, concurrency=1)
    stuck = pool.submit(bench.executor.run_or_submit, bench.events(1, holds=True))
    assert model.holding.acquire(timeout=LONG)
    bench.submit(20)
    assert bench.stuck.acquire(timeout=LONG)  # by now a worker would have begun
    assert not bench.outcomes
    model.release.set()
    stuck.result(LONG)
    bench.wait(21)
    assert model.most_together == 1
    assert bench.stop()


def test_a_call_that_takes_its_time_keeps_no_other_event(model: Model, pool: ThreadPoolExecutor) -> None:
    bench = bench_of(model, concurrency=2)
    before, held, behind = bench.events(10), bench.events(1, holds=True), bench.events(50)
    stuck = pool.submit(bench.executor.run_or_submit, [*before, *held, *behind])
    assert bench.stuck.acquire(timeout=LONG)
    bench.wait(60)
    assert counts(bench, before) == counts(bench, behind) == {1}
    assert counts(bench, held) == {0}
    assert {model.threads[int(event.event_id)] for event in behind} == {"worker"}
    assert [event.attempts for event in behind] == [1] * 50
    model.release.set()
    stuck.result(LONG)
    bench.wait(61)
    assert counts(bench, [*before, *held, *behind]) == {1}
    assert not bench.stuck.acquire(blocking=False)
    assert bench.stop()


def test_outcomes_that_are_slowly_taken_are_reported_once(model: Model, pool: ThreadPoolExecutor) -> None:
    """Phoenix says pause: the push blocks, and another thread reads from the broker."""
    bench = bench_of(model)
    events = bench.events(100)
    taken = bench.executor._reports._on_outcomes
    go_on = threading.Event()

    def take_slowly(outcomes: Sequence[Outcome]) -> None:
        if go_on.wait(LONG):
            taken(outcomes)

    bench.executor._reports._on_outcomes = take_slowly
    stuck = pool.submit(bench.executor.run_or_submit, events)
    assert bench.stuck.acquire(timeout=LONG)
    go_on.set()
    stuck.result(LONG)
    bench.submit(1)
    bench.wait(101)
    assert counts(bench, events) == {1}
    assert bench.stop()


def test_a_call_that_hangs_times_out(model: Model, pool: ThreadPoolExecutor) -> None:
    bench = bench_of(model, concurrency=1, timeout_s=1.0)
    events = [*bench.events(5), *bench.events(1, holds=True), *bench.events(5)]
    stuck = pool.submit(bench.executor.run_or_submit, events)
    outcomes = bench.wait(11)
    assert [each.failure.error_type for each in outcomes if each.failure] == ["Timeout"]
    model.release.set()
    stuck.result(LONG)
    assert counts(bench, events) == {1}
    assert bench.stop()


def test_calls_that_hang_are_counted(model: Model) -> None:
    bench = bench_of(model, concurrency=1, timeout_s=0.05)
    with ThreadPoolExecutor(HUNG_LIMIT + 1) as readers:
        for hung in range(HUNG_LIMIT + 1):
            assert not bench.fatal
            bench.executor._inline._policy = InlinePolicy()
            readers.submit(bench.executor.run_or_submit, bench.events(1, holds=True))
            bench.wait(hung + 1)
        assert "have hung" in str(bench.fatal[0])
        model.release.set()
    assert bench.stop()


def test_a_stop_frees_who_is_stuck(model: Model, pool: ThreadPoolExecutor) -> None:
    bench = bench_of(model)
    stuck = pool.submit(bench.executor.run_or_submit, bench.events(3, holds=True))
    assert model.holding.acquire(timeout=LONG)
    assert not bench.stop(0.0)
    assert bench.stuck.acquire(timeout=LONG)
    model.release.set()
    stuck.result(LONG)
    assert not bench.outcomes
