"""Events that are to be tried alone: nothing else is in progress meanwhile, in whatever way events are tried."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from infertool.consumer.attempt import Event
from infertool.consumer.batching.policy import AdaptiveBatches
from infertool.consumer.batching.port import FixedBatches
from infertool.consumer.worker import Threads
from infertool.models.port import LoadedModel
from tests.consumer.harness import Bench

CONCURRENCY = 4


class Suspects:
    """Those that a test names, and whether their notes are in order."""

    def __init__(self) -> None:
        self.suspected: set[Event] = set()
        self.alone: list[Event] = []
        self.tries: Counter[str] = Counter()

    def begin_alone(self, event: Event) -> None:
        assert self.alone == []
        self.alone.append(event)
        self.tries[event.event_id] += 1

    def end_alone(self, event: Event) -> None:
        self.alone.remove(event)


class Model:
    """Notes what was in progress beside a suspect: `wrong`."""

    def __init__(self, suspects: Suspects) -> None:
        self.wrong: list[object] = []
        self._suspects = suspects
        self._lock = threading.Lock()
        self._running: list[int] = []

    def predict(self, payload: dict[str, Any]) -> int:
        return self.predict_batch([payload])[0]

    def predict_batch(self, payloads: Sequence[Any]) -> list[int]:
        numbers = [payload["n"] for payload in payloads]
        with self._lock:
            self._running += numbers
            alone = [int(event.event_id) for event in self._suspects.alone]
            if alone and self._running != alone:
                self.wrong.append((alone, list(self._running)))
        threading.Event().wait(0.001)
        with self._lock:
            self._running = [each for each in self._running if each not in numbers]
        return numbers


def bench_of(suspects: Suspects, model: Model, **tuning: Any) -> Bench:
    in_batches = "batches" in tuning
    loaded = LoadedModel("test", "test", model.predict, predict_batch=model.predict_batch)
    return Bench(Threads(loaded, in_batches=in_batches), concurrency=CONCURRENCY, suspects=suspects, **tuning)


@pytest.mark.parametrize(
    "batches",
    [lambda: None, lambda: FixedBatches(8, 0.01), lambda: AdaptiveBatches(64)],
    ids=["singly", "batches", "adaptive"],
)
@pytest.mark.parametrize("inline", [False, True], ids=["queued", "inline"])
def test_a_suspect_is_tried_alone_and_the_others_go_on(batches: Callable[[], Any], inline: bool) -> None:
    suspects = Suspects()
    model = Model(suspects)
    policy = batches()
    bench = bench_of(suspects, model, **({"batches": policy} if policy else {}))
    submit = bench.executor.run_or_submit if inline else bench.executor.submit
    count = 0
    for _ in range(10):
        events = bench.events(20)
        count += len(events)
        suspects.suspected.update(events[::7])
        submit(events)
    bench.wait(count)
    assert bench.stop()
    assert model.wrong == []
    assert suspects.alone == []
    assert suspects.tries == Counter(event.event_id for event in suspects.suspected)


def test_its_next_try_is_alone_too() -> None:
    suspects = Suspects()
    model = Model(suspects)
    bench = bench_of(suspects, model)
    events = bench.events(3)
    suspects.suspected.add(events[1])
    bench.executor.submit(events)
    outcomes = {outcome.event: outcome for outcome in bench.wait(3)}
    bench.submit(10)
    bench.wait(13)
    bench.again(outcomes[events[1]])
    assert bench.stop()
    assert suspects.tries == {events[1].event_id: 2}
    assert model.wrong == []


def test_one_that_hangs_holds_the_others_up_no_longer_than_a_call_may_take() -> None:
    suspects = Suspects()
    release = threading.Event()
    loaded = LoadedModel("test", "test", lambda payload: payload["n"] or release.wait())
    bench = Bench(Threads(loaded, in_batches=False), concurrency=CONCURRENCY, suspects=suspects, timeout_s=0.05)
    events = bench.events(20)
    suspects.suspected.add(events[0])
    bench.executor.submit(events)
    outcomes = bench.wait(20)
    assert [each.failure.error_type for each in outcomes if each.failure] == ["Timeout"]
    assert suspects.alone == []
    release.set()
    assert bench.stop()


def test_what_waits_for_its_turn_can_be_removed() -> None:
    suspects = Suspects()
    begun, release = threading.Event(), threading.Event()

    def predict(_payload: object) -> int:
        begun.set()
        release.wait()
        return 1

    bench = Bench(Threads(LoadedModel("test", "test", predict), in_batches=False), concurrency=1, suspects=suspects)
    bench.submit(1)
    assert begun.wait(60)
    events = bench.events(5)
    suspects.suspected.update(events[:2])
    bench.executor.submit(events)
    assert bench.executor.waiting() == 5
    assert bench.executor.remove(lambda event: event in events[1:4]) == events[1:4]
    release.set()
    bench.wait(3)
    assert bench.stop()
    assert suspects.tries == {events[0].event_id: 1}
