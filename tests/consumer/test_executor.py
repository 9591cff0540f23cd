from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from infertool.consumer.attempt import Event, Failure, Outcome
from infertool.consumer.worker import Threads
from infertool.errors import InferenceError
from infertool.models.port import LoadedModel
from tests.consumer.harness import LONG, Bench, wait_until
from tests.support.messages import message


def bench_of(predict: Callable[[dict[str, Any]], object], **options: Any) -> Bench:
    return Bench(Threads(LoadedModel("test", "test", predict), in_batches=False), **options)


def test_each_event_gets_one_outcome() -> None:
    bench = bench_of(lambda payload: payload["n"], concurrency=4)
    bench.submit(1000)
    outcomes = bench.wait(1000)
    assert sorted(outcome.prediction for outcome in outcomes) == list(range(1000))
    assert bench.stop()


def test_as_many_run_at_once_as_asked_for_and_no_more() -> None:
    # A worker whose call hung in another test may still be there.
    others = set(threading.enumerate())
    together = threading.Barrier(5)
    bench = bench_of(lambda _payload: together.wait(LONG), concurrency=5)
    bench.submit(10)
    assert all(outcome.failure is None for outcome in bench.wait(10))
    assert sum(thread.name == "worker" for thread in set(threading.enumerate()) - others) <= 5
    bench.stop()


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (InferenceError("no", retryable=False), False),
        (InferenceError("busy"), True),
        (ValueError("odd"), True),
        (SystemExit(3), False),
        (KeyboardInterrupt(), False),
        (GeneratorExit(), False),
        (MemoryError(), True),
        (RecursionError(), True),
    ],
)
def test_whatever_a_model_raises_is_an_outcome(error: BaseException, retryable: bool) -> None:
    def predict(_payload: object) -> object:
        raise error

    bench = bench_of(predict, concurrency=1)
    bench.submit(2)
    for outcome in bench.wait(2):
        text = str(error) or type(error).__name__
        assert outcome.failure is not None
        assert replace(outcome.failure, traceback="") == Failure("infer", type(error).__name__, text, retryable)
    assert bench.stop()


def test_a_call_that_hangs_times_out_and_its_thread_is_replaced() -> None:
    release = threading.Event()

    def predict(payload: dict[str, object]) -> object:
        if payload["n"] == 0:
            release.wait(LONG)
        return "done"

    bench = bench_of(predict, concurrency=1, timeout_s=1.0)
    bench.submit(3)
    outcomes = bench.wait(3)
    failed = [outcome for outcome in outcomes if outcome.failure]
    assert [outcome.failure.error_type for outcome in failed if outcome.failure] == ["Timeout"]
    assert failed[0].failure is not None
    assert failed[0].failure.retryable
    release.set()
    assert bench.stop()
    assert len(bench.outcomes) == 3


def test_a_try_that_failed_before_still_counts_behind_a_call_that_hangs() -> None:
    release = threading.Event()
    bench = bench_of(lambda payload: payload.get("hangs") and release.wait(LONG), concurrency=1, timeout_s=1.0)
    bench.submit(500)  # so quick that from now on the worker takes several at once
    bench.wait(500)
    hangs, behind = (Event(message(body), "") for body in (b'{"hangs": true}', b"{}"))
    behind.attempts = 1
    bench.executor.submit([hangs, behind])
    outcomes = bench.wait(502)
    assert [outcome.event.attempts for outcome in outcomes if outcome.event is behind] == [2]
    release.set()
    bench.stop()


def test_too_many_hung_calls_end_the_run() -> None:
    release = threading.Event()
    bench = bench_of(lambda _payload: release.wait(LONG), concurrency=1, timeout_s=0.05)
    bench.submit(7)
    bench.wait(6)
    assert bench.fatal
    assert "have hung" in str(bench.fatal[0])
    release.set()


def test_a_stop_drops_what_has_not_begun_and_waits_for_what_has() -> None:
    begun, release = threading.Event(), threading.Event()

    def predict(_payload: object) -> None:
        begun.set()
        release.wait(LONG)

    bench = bench_of(predict, concurrency=1)
    bench.submit(5)
    assert begun.wait(LONG)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(bench.stop)
        bench.wait_stopped()
        release.set()
        assert stopping.result(LONG)
    assert len(bench.outcomes) == 1


class Held(Bench):
    """Notes how many outcomes are reported at a time; each report waits until it may go on."""

    def __init__(self, predict: Callable[[object], object], concurrency: int) -> None:
        self.sizes: list[int] = []
        self.go_on = threading.Event()
        model = LoadedModel("test", "test", predict)
        super().__init__(Threads(model, in_batches=False), concurrency=concurrency)

    def _take(self, outcomes: Sequence[Outcome]) -> None:
        self.sizes.append(len(outcomes))
        assert self.go_on.wait(LONG)
        super()._take(outcomes)


def slow(_payload: object) -> object:
    time.sleep(0.005)
    return "slow"


def test_outcomes_of_a_slow_model_are_reported_together() -> None:
    bench = Held(slow, concurrency=8)
    bench.submit(1)
    wait_until(lambda: bench.sizes)
    bench.submit(7)
    wait_until(lambda: bench.executor._reports.waiting() == 7)
    bench.go_on.set()
    assert {outcome.prediction for outcome in bench.wait(8)} == {"slow"}
    assert bench.sizes == [1, 7]
    assert bench.stop()


def test_workers_wait_while_the_outcomes_of_as_many_calls_are_not_reported() -> None:
    calls = itertools.count()
    bench = Held(lambda payload: (next(calls), slow(payload)), concurrency=2)
    bench.submit(1)
    wait_until(lambda: bench.sizes)
    bench.submit(19)
    # One that the reporting thread has, two or three that wait, and one with each worker.
    wait_until(lambda: len(bench.sizes) == 3)
    assert next(calls) in {5, 6}
    bench.go_on.set()
    assert len(bench.wait(20)) == 20
    assert bench.stop()
