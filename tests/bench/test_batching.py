"""The batcher against the best fixed size, found by search, on models whose call times are known.

The models run on an executor with two threads, without a broker: what is compared is how events are put into calls.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from infertool.consumer.attempt import Decoding, Event, Outcome, Preparation
from infertool.consumer.batching.policy import AdaptiveBatches
from infertool.consumer.batching.port import Batches, FixedBatches
from infertool.consumer.executor import Executor
from infertool.consumer.tuning import Workload
from infertool.consumer.worker import Threads
from infertool.models.port import LoadedModel, PredictBatch
from tests.bench.harness.controller_before import ControllerBefore
from tests.bench.harness.fixtures import Row
from tests.bench.harness.linear_model import linear
from tests.bench.harness.reference import REFERENCE
from tests.support.messages import message

MOST, WORKERS = 1024, 2
# Fixed part of a call and part of an event, in seconds; the part of the time in which it holds the interpreter lock.
MODELS = [(5e-5, 5e-6, 0.0), (1e-3, 5e-5, 0.1), (5e-3, 1e-4, 0.0), (2e-2, 5e-4, 0.1), (0.2, 2e-3, 0.0)]
SIZES = (1, 4, 16, 64, 256, MOST)
WAITS = (0.0, 0.25)
SATURATED_S, OPEN_S = 2.0, 4.0
# The search runs each size so many times; the best two, and what adapts, are then measured in turns.
SEARCHES, CANDIDATES, TURNS, OPEN_TURNS = 2, 2, 5, 3
# The target at 60 % load, as a part of what the best fixed setting of the search had.
TARGET = 1.2


class Line:
    """An executor with a model, and when each of its events came and ended."""

    def __init__(self, predict_batch: PredictBatch, batches: Batches) -> None:
        self._predict_batch = predict_batch
        self.calls: list[tuple[float, float, int]] = []
        model = LoadedModel("linear", "linear", lambda _payload: None, predict_batch=self._timed)
        self.ended: list[tuple[float, float]] = []
        self._body = REFERENCE.read_bytes()
        self._number = 0
        self._refills = threading.Event()
        self.executor = Executor(
            Threads(model, in_batches=True),
            Preparation(Decoding(10_000), lambda _event: None),
            Workload(WORKERS, 60.0, batches=batches),
            on_outcomes=self._take,
            on_tuned=lambda _name, _value: None,
            on_fatal=_fail,
            on_stuck=lambda: None,
        )
        self.executor.start()

    def submit(self, count: int) -> None:
        """Queue events."""
        self._number += count
        self.executor.submit([Event(message(self._body), str(self._number - n)) for n in range(count)])

    def saturate(self, window: int, seconds: float) -> float:
        """Keep so many events here; return the events a second of the second half."""
        self._refills.set()
        began = time.monotonic()
        self.submit(window)
        time.sleep(seconds)
        self._refills.clear()
        self.executor.stop(time.monotonic() + 10)
        begin, end = began + seconds / 2, began + seconds
        # A call counts by the part of it that lies in this time.
        parts = (
            (min(end, ended) - max(begin, started)) / (ended - started) * size for started, ended, size in self.calls
        )
        return sum(part for part in parts if part > 0) / (end - begin)

    def load(self, rate: Callable[[float], float], seconds: float) -> None:
        """Have events arrive at random, at `rate(t)` a second after t seconds."""
        draw = random.Random(7)
        began = now = time.monotonic()
        due = 0.0
        while now - began < seconds:
            count = 0
            while due <= now - began:
                due += draw.expovariate(rate(due))
                count += 1
            if count:
                self.submit(count)
            time.sleep(max(0.0005, began + due - time.monotonic()))
            now = time.monotonic()
        self.executor.stop(time.monotonic() + 10)

    def p99_ms(self, after: float) -> float:
        """Return the 99th percentile of latencies, of those that ended later than `after` (monotonic)."""
        late = sorted(ended - came for ended, came in self.ended if ended >= after)
        return 1000 * late[int(len(late) * 0.99)] if late else float("inf")

    def _timed(self, payloads: Sequence[object]) -> Sequence[object]:
        started = time.monotonic()
        results = self._predict_batch(payloads)
        self.calls.append((started, time.monotonic(), len(payloads)))
        return results

    def _take(self, outcomes: Sequence[Outcome]) -> None:
        now = time.monotonic()
        self.ended += [(now, outcome.event.delivered_at) for outcome in outcomes]
        if self._refills.is_set():
            self.submit(len(outcomes))


def _fail(error: BaseException) -> None:
    raise error


def saturated(model: tuple[float, float, float], batches: Batches, seconds: float) -> float:
    return Line(linear(*model), batches).saturate(4 * MOST, seconds)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{1000 * model[0]:g}ms")
def test_batching_when_saturated(benchmark: BenchmarkFixture, row: Row, model: tuple[float, float, float]) -> None:
    fixed_s, each_s, _ = model
    seconds = max(SATURATED_S, 25 * fixed_s)
    found: dict[str, Any] = {}

    def compare() -> None:
        fits = [size for size in SIZES if fixed_s + each_s * size <= seconds / 4]
        searched: dict[int, float] = dict.fromkeys(fits, 0.0)
        for size in fits * SEARCHES:
            searched[size] += saturated(model, FixedBatches(size, 0.0), seconds / 2)
        best = sorted(fits, key=lambda size: searched[size])[-CANDIDATES:]
        # In turns: a machine that is busy meanwhile is busy for all.
        kinds: dict[str, Callable[[], Batches]] = {
            **{str(size): partial(FixedBatches, size, 0.0) for size in best},
            "auto": lambda: AdaptiveBatches(MOST, workers=WORKERS),
            "before": lambda: ControllerBefore(MOST, 0.01, 0.05),
        }
        rates = [{kind: saturated(model, make(), seconds) for kind, make in kinds.items()} for _ in range(TURNS)]
        median = {kind: statistics.median(turn[kind] for turn in rates) for kind in kinds}
        static = max(map(str, best), key=lambda size: median[size])
        found.update(best=static, auto=median["auto"])
        for kind in ("auto", "before"):
            found[f"{kind}/"] = statistics.median(turn[kind] / turn[static] for turn in rates)

    benchmark.pedantic(compare, rounds=1)
    figure = (
        f"{found['auto/']:.2f}x of size {found['best']} ({found['auto']:.0f}/s); "
        f"the controller before, with a target of 50 ms: {found['before/']:.2f}x"
    )
    row(f"batching, saturated: {describe(model)}", figure, "0.95x of the best fixed size")


@pytest.mark.parametrize("model", MODELS[1:], ids=lambda model: f"{1000 * model[0]:g}ms")
def test_batching_at_60_percent_load(benchmark: BenchmarkFixture, row: Row, model: tuple[float, float, float]) -> None:
    fixed_s = model[0]
    found: dict[str, Any] = {}

    def p99(batches: Batches, rate: float) -> float:
        line = Line(linear(*model), batches)
        began = time.monotonic()
        # The first half is the start: the backlog of its small batches takes some calls.
        seconds = max(OPEN_S, 40 * fixed_s)
        line.load(lambda _at: rate, seconds)
        return line.p99_ms(began + seconds / 2)

    def compare() -> None:
        limit = saturated(model, AdaptiveBatches(MOST, workers=WORKERS), max(SATURATED_S, 25 * fixed_s))
        rate = 0.6 * min(limit, 5000.0)
        settings = [(size, part * fixed_s) for size in (16, 64, 256, MOST) for part in WAITS]
        searched = {setting: p99(FixedBatches(*setting), rate) for setting in settings}
        best = min(searched, key=lambda setting: searched[setting])
        target_s = TARGET * searched[best] / 1000
        kinds: dict[str, Callable[[], Batches]] = {
            "static": lambda: FixedBatches(*best),
            "auto": lambda: AdaptiveBatches(MOST, workers=WORKERS, target_s=target_s),
            "before": lambda: ControllerBefore(MOST, 0.01, target_s),
        }
        # In turns, as above.
        turns = [{kind: p99(make(), rate) for kind, make in kinds.items()} for _ in range(OPEN_TURNS)]
        found.update({kind: statistics.median(turn[kind] for turn in turns) for kind in kinds})
        found.update(rate=rate, best=best, target=1000 * target_s)

    benchmark.pedantic(compare, rounds=1)
    size, wait_s = found["best"]
    figure = (
        f"p99 {found['auto']:.1f} ms at {found['rate']:.0f}/s; the best fixed setting ({size}, {1000 * wait_s:g} ms) "
        f"{found['static']:.1f} ms; the controller before {found['before']:.0f} ms"
    )
    row(f"batching at 60 % load: {describe(model)}", figure, f"within the target, {found['target']:.1f} ms")


@pytest.mark.parametrize("what", ["load", "speed"])
def test_batching_follows_a_step(benchmark: BenchmarkFixture, row: Row, what: str) -> None:
    """After 4 s the load is ten times, or the model four times as slow: the last 2 s are as in a run of the new."""
    step_at = [float("inf")]
    fixed_s, each_s = 5e-3, 1e-4
    found: dict[str, Any] = {}

    def run(*, steps: bool) -> float:
        began = time.monotonic()
        step_at[0] = began + (4.0 if steps else 0.0)
        slower = 4.0 if what == "speed" else 1.0
        model = linear(fixed_s, each_s, 0.0, lambda: slower if time.monotonic() >= step_at[0] else 1.0)
        line = Line(model, AdaptiveBatches(MOST, workers=WORKERS, target_s=0.2))
        low, high = (200.0, 2000.0) if what == "load" else (1500.0, 1500.0)
        line.load(lambda at: high if began + at >= step_at[0] else low, 8.0)
        return line.p99_ms(began + 6.0)

    def compare() -> None:
        found.update(stepped=run(steps=True), steady=run(steps=False))

    benchmark.pedantic(compare, rounds=1)
    name = "ten times the load" if what == "load" else "a model four times as slow"
    figure = f"p99 {found['stepped']:.1f} ms, without a step {found['steady']:.1f} ms"
    row(f"batching, 2 s after {name}", figure, "as without a step")


def describe(model: tuple[float, float, float]) -> str:
    fixed_s, each_s, held = model
    lock = f", holds the lock for {held:.0%}" if held else ""
    return f"a call of {1000 * fixed_s:g} ms and {1e6 * each_s:g} us an event{lock}"
