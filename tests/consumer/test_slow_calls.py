"""A call that takes long holds up no other event, on every executor; none is tried twice, and no try is miscounted."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from infertool.consumer.attempt import Event, Outcome
from infertool.consumer.batching.port import FixedBatches
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.consumer.worker import Threads
from infertool.models import loader
from infertool.models.port import LoadedModel
from infertool.settings import ModelSettings
from tests.consumer.harness import LONG, Bench, failures

MODEL = "fixtures/models/holds.py:Holds"
# So many quick events teach the executor to hand out many at once.
TAUGHT = 500
BEHIND = 60

Open = Callable[..., contextlib.AbstractContextManager[Bench]]


@contextlib.contextmanager
def on_threads(**options: Any) -> Iterator[Bench]:
    bench = Bench(Threads(loader.load(MODEL), in_batches="batches" in options), **options)
    yield bench
    assert bench.stop()


@contextlib.contextmanager
def on_processes(*, concurrency: int = 2, **options: Any) -> Iterator[Bench]:
    config = WorkerConfig(ModelSettings(spec=MODEL), "batches" in options, 0, 0)
    with Processes(config, concurrency, lambda _text: None) as worker_pool:
        bench = Bench(worker_pool, concurrency=concurrency, **options)
        yield bench
        assert bench.stop()


in_both = pytest.mark.parametrize("opened", [on_threads, on_processes], ids=["threads", "processes"])


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Path]:
    """A file that lets held events go on; at the end of the test at the latest."""
    path = tmp_path / "release"
    yield path
    path.touch()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "calls"
    monkeypatch.setenv("HOLDS_LOG", str(path))
    return path


def calls(log: Path) -> Counter[int]:
    """Return how often the model was asked about each event."""
    return Counter(int(line.split()[0]) for line in log.read_text().splitlines())


def taught(bench: Bench) -> None:
    bench.submit(TAUGHT)
    bench.wait(TAUGHT)


def counts(bench: Bench, events: list[Event]) -> set[int]:
    """Return how often the events got an outcome."""
    found = Counter(outcome.event.event_id for outcome in bench.outcomes)
    return {found[event.event_id] for event in events}


@in_both
@pytest.mark.parametrize("position", [0, 1, 29, 59, 60])
def test_what_is_around_a_slow_event_comes_out(opened: Open, position: int, release: Path, log: Path) -> None:
    with opened(concurrency=2) as bench:
        taught(bench)
        quick, slow = bench.events(BEHIND), bench.events(1, holds=str(release))
        bench.executor.submit([*quick[:position], *slow, *quick[position:]])
        bench.wait(TAUGHT + BEHIND)
        assert counts(bench, quick) == {1}
        assert counts(bench, slow) == {0}
        release.touch()
        bench.wait(TAUGHT + BEHIND + 1)
        assert counts(bench, [*quick, *slow]) == {1}
        assert {event.attempts for event in [*quick, *slow]} == {1}
        assert set(calls(log).values()) == {1}, "tried twice"


@in_both
def test_as_many_slow_events_as_workers_but_one(opened: Open, release: Path, log: Path) -> None:
    with opened(concurrency=3) as bench:
        taught(bench)
        quick, slow = bench.events(3 * BEHIND), bench.events(2, holds=str(release))
        bench.executor.submit([*quick[:10], slow[0], *quick[10:100], slow[1], *quick[100:]])
        bench.wait(TAUGHT + len(quick))
        assert counts(bench, quick) == {1}
        release.touch()
        bench.wait(TAUGHT + len(quick) + 2)
        assert {event.attempts for event in [*quick, *slow]} == {1}
        assert set(calls(log).values()) == {1}


@in_both
def test_a_slow_event_that_never_ends_costs_only_itself(opened: Open, release: Path) -> None:
    with opened(concurrency=1, timeout_s=3.0) as bench:
        taught(bench)
        before, slow, behind = bench.events(5), bench.events(1, holds=str(release)), bench.events(BEHIND)
        bench.executor.submit([*before, *slow, *behind])
        outcomes = bench.wait(TAUGHT + 5 + 1 + BEHIND)
        assert failures(outcomes) == {slow[0].event_id: "Timeout"}
        assert {event.attempts for event in [*before, *slow, *behind]} == {1}
        assert counts(bench, [*before, *slow, *behind]) == {1}
        release.touch()


def test_a_process_that_dies_in_a_slow_call_costs_only_that(release: Path, log: Path) -> None:
    with on_processes(concurrency=2) as bench:
        taught(bench)
        quick, slow = bench.events(BEHIND), bench.events(1, holds=str(release), do="exit")
        bench.executor.submit([*quick[:20], *slow, *quick[20:]])
        bench.wait(TAUGHT + BEHIND)
        release.touch()
        outcomes = bench.wait(TAUGHT + BEHIND + 1)
        assert failures(outcomes) == {slow[0].event_id: "WorkerDied"}
        assert {event.attempts for event in [*quick, *slow]} == {1}
        assert set(calls(log).values()) == {1}


@pytest.mark.parametrize("deaths", range(3))
def test_processes_that_die_among_quick_events_lose_and_repeat_nothing(deaths: int, log: Path) -> None:
    with on_processes(concurrency=2) as bench:
        taught(bench)
        quick, fatal = bench.events(300), bench.events(deaths, do="exit")
        config = list(quick)
        for n, event in enumerate(fatal):
            config.insert(40 * (n + 1), event)
        bench.executor.submit(config)
        outcomes = bench.wait(TAUGHT + 300 + deaths)
        assert failures(outcomes) == {event.event_id: "WorkerDied" for event in fatal}
        assert counts(bench, config) == {1}
        assert {event.attempts for event in config} == {1}
        assert set(calls(log).values()) == {1}


@in_both
def test_half_of_a_batch_that_takes_long_holds_up_no_other_half(opened: Open, release: Path) -> None:
    """The batch raises, is halved, and again: what was done before the slow event and what is behind it comes out."""
    with opened(concurrency=2, batches=FixedBatches(8, LONG)) as bench:
        bodies: list[dict[str, object]] = [{} for _ in range(8)]
        bodies[0], bodies[3], bodies[7] = {"spoils": 1}, {"holds": str(release)}, {"spoils": 1}
        bench.submit_all([{"n": n, **body} for n, body in enumerate(bodies)])
        # The event beside the slow one shares its call: that cannot be helped.
        outcomes = bench.wait(6)
        assert {outcome.event.event_id for outcome in outcomes} == {"0", "1", "4", "5", "6", "7"}
        release.touch()
        assert {outcome.event.attempts for outcome in bench.wait(8)} == {1}
        assert not failures(bench.outcomes)


@in_both
def test_what_cannot_be_decoded_does_not_wait_for_its_batch(opened: Open, release: Path) -> None:
    with opened(concurrency=1, batches=FixedBatches(3, LONG)) as bench:
        bench.submit_all([{"n": 0, "holds": str(release)}, {"n": 1, "long": "x" * 2000}, {"n": 2}])
        assert failures(bench.wait(1)) == {"1": "TooLarge"}
        release.touch()
        bench.wait(3)


def test_an_event_that_is_to_be_tried_alone_does_not_wait_for_a_batch_to_fill() -> None:
    with on_threads(batches=FixedBatches(1000, LONG * 10)) as bench:
        bench.submit(3)
        alone = bench.events(1)
        alone[0].alone = True
        bench.executor.submit(alone)
        bench.wait(4)


def test_a_slow_report_is_not_the_models_time() -> None:
    """Phoenix says pause for longer than `timeout_s`: no call has taken that long."""
    go_on, blocked = threading.Event(), threading.Semaphore(0)
    bench = Bench(Threads(LoadedModel("test", "test", dict), in_batches=False), concurrency=2, timeout_s=0.3)
    taken = bench.executor._reports._on_outcomes

    def take(outcomes: Any) -> None:
        blocked.release()
        go_on.wait(LONG)
        taken(outcomes)

    bench.executor._reports._on_outcomes = take
    bench.submit(2)
    assert blocked.acquire(timeout=LONG)
    assert blocked.acquire(timeout=LONG)
    assert not threading.Event().wait(1.5)  # five times what a call may take
    go_on.set()
    assert not failures(bench.wait(2))
    assert len(bench.outcomes) == 2
    assert bench.stop()


def test_calls_time_out_although_no_report_can_be_made() -> None:
    """Phoenix has no room, and a call hangs: its place is free for others."""
    go_on, hang = threading.Event(), threading.Event()
    tried: set[int] = set()

    def predict(payload: dict[str, Any]) -> None:
        tried.add(payload["n"])
        if payload.get("hangs"):
            hang.wait(LONG)

    bench = Bench(Threads(LoadedModel("test", "test", predict), in_batches=False), concurrency=1, timeout_s=0.1)
    taken = bench.executor._reports._on_outcomes

    def take_slowly(outcomes: Sequence[Outcome]) -> None:
        if go_on.wait(LONG):
            taken(outcomes)

    bench.executor._reports._on_outcomes = take_slowly
    for _ in range(3):  # the report of the first blocks, and must not keep the others from timing out
        bench.submit(1, hangs=True)
    end = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if len(tried) == 3:
            break
        end.wait(0.01)
    assert tried == {0, 1, 2}
    go_on.set()
    assert set(failures(bench.wait(3)).values()) == {"Timeout"}
    hang.set()
    assert bench.stop()
