"""The whole consumer over deaths of its process, on the broker in process: only what causes them is condemned."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Address, Server
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.router import Published
from infertool.consumer.worker import Threads
from infertool.message import Outgoing
from infertool.models.port import LoadedModel
from infertool.publishers.local import LocalPublisher
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import ConsumeSettings, DeadLetterSettings
from tests.consumer.harness import LONG, wait_until

QUEUE, DEAD = "events", "dead"
COUNT, CONCURRENCY = 20, 3


class Model:
    """Holds its calls until it is released, that of `killer` until the test is over. Notes what was `beside` a call."""

    def __init__(self, killer: int | None = None) -> None:
        self.begun: list[int] = []
        self.beside: dict[int, set[int]] = {}
        self.release = threading.Event()
        self.over = threading.Event()
        self._killer = killer
        self._lock = threading.Lock()
        self._running: set[int] = set()

    def __call__(self, payload: Any) -> Any:
        number = payload["n"]
        with self._lock:
            self.begun.append(number)
            self._running.add(number)
            for each in self._running:
                self.beside.setdefault(each, set()).update(self._running - {each})
        if number == self._killer:
            self.over.wait()
        self.release.wait()
        with self._lock:
            self._running.remove(number)
        return {}


class Life:
    """One process that consumes, as far as others can see: a consumer with notes and an address of its own."""

    numbers = itertools.count(1)

    def __init__(self, server: Server, state_dir: Path, model: Model) -> None:
        self.address: Address = server.new_address()
        self.model = model
        self.results: Counter[int] = Counter()
        settings = Settings(
            broker=BrokerSettings(url=self.address.url, queue=QUEUE, receipt_timeout_s=1.0, reconnect_max_s=0.01),
            deadletter=DeadLetterSettings(queue=DEAD),
            consume=ConsumeSettings(concurrency=CONCURRENCY, window=COUNT, stop_deadline_s=0.01),
        )
        self.consumer = Consumer(
            settings,
            Threads(LoadedModel("m", "m", model), in_batches=False),
            open_broker=lambda on_connection: brokers.open(settings.broker, on_connection=on_connection),
            publisher=LocalPublisher[Published]("results", self._record),
            name="c",
            state_dir=state_dir,
            observe=lambda _signal: None,
            until=Until(),
        )
        # All are at one broker, which notes are kept by.
        self.consumer._guard._folder = state_dir / "one"
        self._thread = threading.Thread(target=self.consumer.run)
        self._thread.start()

    def _record(self, documents: Sequence[bytes]) -> None:
        for document in map(json.loads, documents):
            if document["status"] == "SUCCESS":
                self.results[document["original_payload"]["n"]] += 1

    def die(self) -> None:
        """Die with what is in progress: its notes stay, without the lock, and its messages come to others."""
        own = self.consumer._guard._file
        if own is not None:
            path = Path(str(own.name))
            path.with_name(f"{next(self.numbers)}-dead.notes").write_bytes(path.read_bytes())
        self.address.faults.plan(Operation.CONNECT, Effect.CUT_BEFORE, times=None)
        self.address.faults.cut("killed")

    def end(self) -> None:
        self.model.release.set()
        self.model.over.set()
        self.consumer.stop()
        self._thread.join(LONG)
        assert not self._thread.is_alive()


Start = Callable[..., Life]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(f"suspects-{next(Life.numbers)}", CAPABILITIES) as server:
        for number in range(COUNT):
            server.send(Outgoing(QUEUE, json.dumps({"n": number}).encode()))
        yield server


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Start]:
    lives: list[Life] = []

    def start(killer: int | None = None) -> Life:
        lives.append(Life(server, tmp_path, Model(killer)))
        return lives[-1]

    yield start
    for life in lives:
        life.end()


def die_in_work(start: Start) -> list[int]:
    """Have a consumer die with as many events in progress as there can be; return their numbers."""
    life = start()
    wait_until(lambda: len(life.model.begun) == CONCURRENCY)
    life.die()
    return life.model.begun


def test_what_was_in_progress_at_two_deaths_by_chance_is_tried_alone_and_ends_well(
    server: Server, start: Start
) -> None:
    first = die_in_work(start)
    second = die_in_work(start)
    assert first == second
    third = start()
    third.model.release.set()
    wait_until(lambda: not server.held(QUEUE))
    assert server.held(DEAD) == []
    assert set(third.results) == set(range(COUNT))
    assert [third.model.beside[number] for number in second] == [set()] * CONCURRENCY


def test_of_those_in_progress_only_the_one_that_ends_the_process_alone_is_condemned(
    server: Server, start: Start
) -> None:
    die_in_work(start)
    suspects = die_in_work(start)
    killer = suspects[1]
    third = start(killer)
    third.model.release.set()
    wait_until(lambda: killer in third.model.begun)
    assert third.model.beside[killer] == set()
    third.die()
    fourth = start()
    fourth.model.release.set()
    wait_until(lambda: not server.held(QUEUE))
    (letter,) = server.held(DEAD)
    assert json.loads(letter.outgoing.body) == {"n": killer}
    assert letter.outgoing.headers["dlq_stage"] == "crash"
    assert {*third.results, *fourth.results} == set(range(COUNT)) - {killer}
