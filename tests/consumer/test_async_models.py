"""Async models in a consumer: outcomes, time-outs and stops are those of other models, and calls are cancelled."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from infertool.consumer.batching.port import FixedBatches
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.consumer.worker import Threads, WorkerPool
from infertool.models.loader import load, warm_up
from infertool.settings import ModelSettings
from tests.conftest import FIXTURES
from tests.consumer.harness import LONG, Bench, failures, wait_until

SPEC = f"{FIXTURES}/models/awaits.py:Does"
Open = Callable[..., Bench]


@contextmanager
def on_threads(*, in_batches: bool = False) -> Iterator[tuple[WorkerPool, Any]]:
    """Yield a pool, and the object of the model. At the end no thread is left behind."""
    before = set(threading.enumerate())
    model = load(SPEC)
    module = sys.modules["infertool_model_awaits"]
    found: list[Any] = []

    async def tell(self: Any, _payload: Any) -> None:
        found.append(self)

    module.Does.tell = tell
    warm_up(model)
    model.predict({"do": "tell"})
    try:
        yield Threads(model, in_batches=in_batches), found[0]
    finally:
        model.close()
    wait_until(lambda: not [each for each in set(threading.enumerate()) - before if each.name == "worker"])


@contextmanager
def on_processes() -> Iterator[WorkerPool]:
    with Processes(WorkerConfig(ModelSettings(spec=SPEC), False, 0, 0), 1, lambda _text: None) as pool:
        yield pool


@pytest.fixture(params=["threads", "processes"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    with ExitStack() as stack:
        pool: WorkerPool
        if request.param == "threads":
            pool, _ = stack.enter_context(on_threads())
        else:
            pool = stack.enter_context(on_processes())

        def bench(**options: Any) -> Bench:
            made = Bench(pool, concurrency=1, **options)
            stack.callback(made.stop)
            return made

        yield bench


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # that is what is tested
def test_each_event_gets_the_outcome_of_any_model(opened: Open) -> None:
    bench = opened()
    deeds = ["answer", "raises", "exits", "interrupts", "cancels_itself", "is_away", "forks", "answer"]
    bench.submit_all([{"n": n, "do": do} for n, do in enumerate(deeds)])
    outcomes = bench.wait(len(deeds))
    assert failures(outcomes) == {
        "1": "ValueError",
        "2": "SystemExit",
        "3": "KeyboardInterrupt",
        "4": "InferenceError",
        "5": "ModelUnavailableError",
    }
    by_id = {outcome.event.event_id: outcome for outcome in outcomes}
    retryable = {number for number, each in by_id.items() if each.failure and each.failure.retryable}
    assert retryable == {"1", "4", "5"}
    assert [number for number, each in by_id.items() if each.is_held] == ["5"]
    assert by_id["1"].failure is not None
    assert "awaits.py" in by_id["1"].failure.traceback


def test_a_call_that_never_ends_times_out_and_the_next_goes_on(opened: Open) -> None:
    bench = opened(timeout_s=3.0)
    bench.submit_all([{"n": 0, "do": "hangs"}, {"n": 1}])
    outcomes = bench.wait(2)
    assert failures(outcomes) == {"0": "Timeout"}
    assert not bench.fatal


def test_calls_that_are_given_up_are_cancelled_and_leave_no_thread_behind() -> None:
    with on_threads() as (pool, model):
        bench = Bench(pool, concurrency=2, timeout_s=0.2)
        bench.submit(20, do="hangs")  # more than the calls that may hang
        assert len(failures(bench.wait(20))) == 20
        wait_until(lambda: model.cancelled == 20)
        assert not bench.fatal
        assert bench.stop()


def test_calls_that_swallow_their_cancellation_hang_as_others_do() -> None:
    with on_threads() as (pool, model):
        bench = Bench(pool, concurrency=1, timeout_s=0.05)
        bench.submit(7, do="swallows")
        bench.wait(6)
        wait_until(lambda: bench.fatal)
        assert "have hung" in str(bench.fatal[0])
        wait_until(lambda: model.cancelled)
        beside = Bench(pool, concurrency=1)
        beside.submit(1, do="releases")
        beside.wait(1)
        assert all(each.stop() for each in (bench, beside))


def test_as_many_calls_are_outstanding_as_asked_for_and_no_more() -> None:
    with on_threads() as (pool, model):
        bench = Bench(pool, concurrency=6)
        bench.submit(30, do="waits")
        wait_until(lambda: model.outstanding == 6)
        beside = Bench(pool, concurrency=1)
        beside.submit(1, do="releases")
        bench.wait(30)
        assert model.most == 7
        assert all(each.stop() for each in (bench, beside))


def test_a_batch_that_never_ends_is_cancelled_and_tried_one_by_one() -> None:
    with on_threads(in_batches=True) as (pool, model):
        bench = Bench(pool, concurrency=1, timeout_s=2.0, batches=FixedBatches(4, LONG))
        bench.submit_all([{"n": n, "do": "hangs" if n == 2 else "answer"} for n in range(4)])
        assert failures(bench.wait(4)) == {"2": "Timeout"}
        wait_until(lambda: model.cancelled == 2)  # with its batch, and alone
        assert bench.stop()


def test_what_outlasts_the_stop_is_cancelled_when_the_model_is_closed() -> None:
    with on_threads() as (pool, model):
        bench = Bench(pool, concurrency=2)
        bench.submit(2, do="hangs")
        wait_until(lambda: model.outstanding == 2)
        assert not bench.stop(0.1)
    assert (model.cancelled, model.closed_with) == (2, 0)
    assert not bench.outcomes
