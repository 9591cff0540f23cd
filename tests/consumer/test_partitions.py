"""Partitions that go from one consumer to another, on the broker in process: no event is lost, and none is settled by
a consumer that does not have its partition any more."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infertool.brokers import weighted_queues
from infertool.brokers.memory.partitions import KEY, Partitions
from infertool.brokers.memory.server import Server
from infertool.cli.consume.view import Status
from infertool.consumer import gauge
from infertool.consumer.attempt import Event
from infertool.consumer.settlement import Settlement
from infertool.consumer.worker import WorkerPool
from infertool.message import Message, Outgoing
from infertool.telemetry.latencies import Percentiles
from infertool.telemetry.stats import Recent
from tests.consumer.harness import LONG, wait_until
from tests.consumer.moving import (
    COUNT,
    DEAD,
    OTHER,
    QUEUE,
    Run,
    Start,
    calls,
    numbers,
    partition_of,
    processes,
    send,
    threads,
)
from tests.consumer.service import hurry


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    hurry(monkeypatch)
    with Server(f"partitions-{next(numbers)}") as server:
        yield server


KINDS: dict[str, tuple[Callable[[], AbstractContextManager[WorkerPool]], str, dict[str, Any]]] = {
    "threads": (threads, QUEUE, {}),
    "batches": (lambda: threads(in_batches=True), QUEUE, {"batch_size": 2}),
    "weighted": (threads, f"{QUEUE}=2,{OTHER}=1", {}),
    "processes": (processes, QUEUE, {"executor": "processes"}),
}
ALL = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture
def kind() -> str:
    return "threads"


@pytest.fixture
def partitions(server: Server) -> Partitions:
    server.partition(OTHER, 1)
    return server.partition(QUEUE, 2)


@pytest.fixture
def start(server: Server, partitions: Partitions, tmp_path: Path, kind: str) -> Iterator[Start]:
    make_pool, queue, options = KINDS[kind]
    runs: list[Run] = []
    pools: list[AbstractContextManager[WorkerPool]] = []

    def start(**consume: Any) -> Run:
        pools.append(make_pool())
        runs.append(Run(server, tmp_path / f"{len(runs)}", pools[-1].__enter__(), queue, **{**options, **consume}))
        return runs[-1]

    yield start
    for run in runs:
        run.end()
    for pool in pools:
        pool.__exit__(None, None, None)


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file that a model waits for."""
    return tmp_path / "hold"


def begin(server: Server, partitions: Partitions, first: Run, hold: Path, count: int = COUNT) -> tuple[str, list[str]]:
    """Have `first` try the first event, and hold the others. Return their partition, and the ids of all."""
    ids = send(server, count, hold=str(hold))
    name = partition_of(server)
    partitions.assign(first.address)
    wait_until(lambda: calls(hold) >= 1)
    wait_until(lambda: not [stored for stored in server.held(QUEUE) if not stored.deliveries])
    return name, ids


def settled(server: Server) -> None:
    wait_until(lambda: not server.held(QUEUE))


@ALL
def test_what_has_not_begun_goes_back_at_once_and_what_has_begun_is_still_settled(
    server: Server, partitions: Partitions, start: Start, hold: Path
) -> None:
    first, second = start(), start()
    name, ids = begin(server, partitions, first, hold)
    partitions.begin_revoke(name)
    begun = calls(hold)
    wait_until(lambda: len(first.released) >= COUNT - 2)  # a batch, or what a process was given, has begun
    hold.touch()
    wait_until(lambda: len(server.held(QUEUE)) == len(first.released))
    assert begun <= len(first.publisher.of()) == COUNT - len(first.released)
    partitions.end_revoke(name)
    partitions.assign(second.address, name)
    settled(server)
    results = first.publisher.of() | second.publisher.of()
    assert set(results) == set(ids)
    assert not set(first.publisher.of()) & set(second.publisher.of())
    assert first.counts["revoked"] <= len(first.released)


@ALL
def test_the_outcome_of_an_event_whose_partition_is_gone_counts_for_nothing(
    server: Server, partitions: Partitions, start: Start, hold: Path
) -> None:
    first, second = start(), start()
    name, ids = begin(server, partitions, first, hold)
    partitions.end_revoke(name)  # as for a member that was thought dead
    assert len(first.consumer._in_flight) == 0
    assert not Path(first.consumer._guard._folder).exists()
    hold.touch()
    partitions.assign(second.address, name)
    settled(server)
    wait_until(lambda: not first.consumer._in_flight.revoked)
    assert not first.publisher.counts
    assert second.publisher.of() == dict.fromkeys(ids, 1)
    wait_until(lambda: second.counts["succeeded"] == COUNT)  # told after the ack
    assert first.counts["succeeded"] == 0


@ALL
def test_a_partition_that_comes_back_finds_its_event_still_in_progress(
    server: Server, partitions: Partitions, start: Start, hold: Path
) -> None:
    first = start()
    name, ids = begin(server, partitions, first, hold, count=1)
    partitions.move(first.address, name)
    wait_until(lambda: len(first.consumer._in_flight) == 1)
    assert (first.counts["revoked"], first.counts["received"]) == (1, 2)
    hold.touch()
    settled(server)
    assert first.publisher.of() == dict.fromkeys(ids, 1)
    assert calls(hold) == 1


def test_events_that_are_taken_in_while_their_partition_goes_are_given_back(
    server: Server, partitions: Partitions, start: Start, hold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = Settlement.admit

    def admit_and_revoke(settlement: Settlement, messages: Sequence[Message]) -> list[Event]:
        events = admit(settlement, messages)
        partitions.begin_revoke(name)
        return events

    first = start()
    send(server, hold=str(hold))
    name = partition_of(server)
    monkeypatch.setattr(Settlement, "admit", admit_and_revoke)
    partitions.assign(first.address)
    wait_until(lambda: len(first.released) >= COUNT - 1)
    hold.touch()
    wait_until(lambda: len(first.consumer._in_flight) == 0)
    assert len(first.publisher.of()) + len(first.released) == COUNT


def test_a_confirmation_that_comes_late_acks_nothing_and_is_remembered(
    server: Server, partitions: Partitions, start: Start
) -> None:
    first, second = start(), start()
    first.publisher.holds = True
    send(server, 2)
    name = partition_of(server)
    partitions.assign(first.address)
    wait_until(lambda: len(first.publisher.held) == 2)
    partitions.end_revoke(name)
    first.publisher.confirm()
    assert len(server.held(QUEUE)) == 2
    assert (first.counts["revoked"], first.counts["succeeded"]) == (2, 0)
    partitions.assign(first.address, name)
    settled(server)
    assert (first.counts["recognised"], len(first.publisher.held)) == (2, 2)
    assert not second.publisher.counts


@pytest.mark.parametrize("state", ["waits", "fails meanwhile", "held"])
def test_an_event_that_waits_for_its_next_try_goes_back(
    server: Server, partitions: Partitions, start: Start, hold: Path, state: str
) -> None:
    first, second = start(retry_base_s=LONG, retry_max_s=LONG), start(max_attempts=1)
    fails = {"held": "away"}.get(state, "again")
    [event_id] = send(server, 1, fails=fails, **({"hold": str(hold)} if state == "fails meanwhile" else {}))
    name = partition_of(server)
    partitions.assign(first.address)
    if state == "fails meanwhile":
        wait_until(lambda: calls(hold))
        partitions.begin_revoke(name)
        assert not first.released
        hold.touch()
    else:
        wait_until(lambda: first.counts["held" if state == "held" else "retried"])
        partitions.begin_revoke(name)
    wait_until(lambda: first.released)
    assert len(first.consumer._in_flight) == 0
    partitions.end_revoke(name)
    hold.touch()
    partitions.assign(second.address, name)
    if state == "held":
        wait_until(lambda: second.counts["held"])
        return
    settled(server)
    assert [stored.outgoing.headers["event_id"] for stored in server.held(DEAD)] == [event_id]
    assert (first.counts["revoked"], first.counts["failed"]) == (1, 0)


def test_a_dead_letter_that_is_being_moved_is_written_once(
    server: Server, partitions: Partitions, start: Start
) -> None:
    """The moves of both wait at the broker while the partition goes; the broker refuses the first one's."""
    first, second = start(), start()
    ids = send(server, 3, fails="for good")
    name = partition_of(server)
    first.publisher.holds = True
    partitions.assign(first.address)
    wait_until(lambda: len(first.publisher.held) == 3)
    first.address.faults.stall()
    first.publisher.confirm()
    assert first.address.faults.holding.wait(LONG)
    partitions.end_revoke(name)
    first.address.faults.resume()
    partitions.assign(second.address, name)
    settled(server)
    dead = [stored.outgoing.headers["event_id"] for stored in server.held(DEAD)]
    assert sorted(dead) == sorted(ids)
    wait_until(lambda: not first.consumer._in_flight.revoked)
    assert (first.counts["dead_lettered"], first.counts["revoked"]) == (0, 3)
    assert first.consumer._in_flight.unsettled() == 0


def test_of_one_partition_that_goes_the_other_keeps_everything(
    server: Server, partitions: Partitions, start: Start, hold: Path
) -> None:
    first = start(concurrency=4)
    for n in range(20):
        body = json.dumps({"event_id": f"{n}", "hold": str(hold)}).encode()
        server.send(Outgoing(QUEUE, body))  # in turn
    partitions.assign(first.address)
    wait_until(lambda: len(first.consumer._in_flight) == 20)
    wait_until(lambda: calls(hold) == 4)  # all others wait for workers
    gone, kept = partitions.names
    partitions.end_revoke(gone)
    assert {event.message.partition for event in first.consumer._in_flight._open} == {kept}
    assert {message.partition for message in first.released} == {gone}
    hold.touch()
    wait_until(lambda: len(server.held(QUEUE)) == 10)
    assert set(first.publisher.of().values()) == {1}
    assert {stored.partition for stored in server.held(QUEUE)} == {gone}
    partitions.assign(first.address, gone)
    settled(server)
    assert len(first.publisher.of()) == 20


def test_the_lag_is_shown(
    server: Server, partitions: Partitions, start: Start, hold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ASK_S", "REPORT_S"):
        monkeypatch.setattr(gauge, name, 0.01)
    first = start()
    begin(server, partitions, first, hold)
    wait_until(lambda: (lag := first.stats.snapshot().lag) and lag.messages == COUNT)
    wait_until(lambda: first.stats.snapshot().waiting == 0)
    status = Status(first.stats.snapshot(), Recent(0, 0, Percentiles()))
    assert f"lag {COUNT} (" in status.line()
    assert status.fields()["lag"]["messages"] == COUNT
    hold.touch()
    wait_until(lambda: (lag := first.stats.snapshot().lag) and lag.messages == 0)
    server.send(Outgoing("plain", b"{}"))
    assert weighted_queues.lag(first.consumer._broker, ["plain"], 1.0) is None  # type: ignore[arg-type]


@ALL
def test_partitions_move_at_any_time(server: Server, partitions: Partitions, start: Start, kind: str) -> None:
    """Each event ends as a result or a dead letter, and in a consumer every event is accounted for."""
    chance = random.Random(7)
    runs = [start(concurrency=3), start(concurrency=3)]

    def come_to(left: int) -> bool:
        return len(server.held(QUEUE)) <= left or chance.random() < 0.5

    ends = {}
    for n in range(80):
        fails = {1: "for good", 2: "again"}.get(n % 8, "")
        ends[f"{n}"] = "dead" if fails else "result"
        headers = {"event_id": f"{n}", **({KEY: f"k{n}"} if n % 2 else {})}
        server.send(Outgoing(QUEUE, json.dumps({"event_id": f"{n}", "fails": fails}).encode(), headers=headers))
    partitions.assign(runs[0].address)
    for _ in range(20):
        wait_until(partial(come_to, chance.randrange(80)))
        name, taker = chance.choice(partitions.names), chance.choice(runs)
        if chance.random() < 0.5:
            partitions.begin_revoke(name)
        partitions.end_revoke(name)
        if chance.random() < 0.2:
            chance.choice(runs).address.faults.cut()
        partitions.assign(taker.address, name)
    settled(server)
    results = {event_id for run in runs for event_id in run.publisher.of()}
    dead = Counter(stored.outgoing.headers["event_id"] for stored in server.held(DEAD))
    assert results == {event_id for event_id, end in ends.items() if end == "result"}
    assert dead == {event_id: 1 for event_id, end in ends.items() if end == "dead"}
