"""`consume --queue high=8,normal=3,low=1`: weights under saturation, shares that are not used, deaths, refusals."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from infertool import brokers
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.consumer import dead_letter_writer, pipeline
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.weighted import WeightedIntake
from infertool.consumer.worker import Threads
from infertool.message import Outgoing
from infertool.models.port import LoadedModel
from infertool.net.timing import FullJitter
from infertool.publishers.local import LocalPublisher
from infertool.secret import Secret
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import ConsumeSettings, DeadLetterSettings
from infertool.telemetry import signals as o
from tests.bus.conftest import Bus
from tests.consumer.harness import LONG, wait_until
from tests.support.hub import HubProcess
from tests.support.viewer import Viewer

WEIGHTS = {"high": 8, "normal": 3, "low": 1}
_numbers = itertools.count(1)

KINDS = [
    "memory",
    "embedded",
    pytest.param("activemq", marks=pytest.mark.activemq),
    pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
]


@dataclass
class World:
    """Three queues of one broker, and consumers of them in this process."""

    url: str
    folder: Path
    server: Server | None = None
    prefix: str = field(default_factory=lambda: f"weights.{uuid.uuid4().hex[:8]}.")
    published: list[dict[str, Any]] = field(default_factory=list)
    intakes: list[WeightedIntake] = field(default_factory=list)
    sent: set[str] = field(default_factory=set)
    signals: list[o.Signal] = field(default_factory=list)
    # So many calls are of messages that were taken while others of each queue were at hand: the queues are saturated.
    saturated: int = 0
    calls: list[str] = field(default_factory=list)

    def room(self, intake: WeightedIntake, room: int) -> int:
        """Return the room that there is; while it has to be saturated, for one message if each queue has some here."""
        # Calls count, and not what was taken: a partition that moves takes with it what has not begun.
        if len(self.calls) >= self.saturated or room <= 0:
            return room
        return 1 if all(intake._messages._waiting) else 0

    def settings(self, **consume: Any) -> Settings:
        return Settings(
            broker=BrokerSettings(
                url=self.url,
                user="admin",
                password=Secret("admin"),
                queue=",".join(f"{self.prefix}{name}={weight}" for name, weight in WEIGHTS.items()),
                declare=True,
                queue_type="classic",
                reconnect_max_s=0.1,
            ),
            deadletter=DeadLetterSettings(queue=f"{self.prefix}dead"),
            consume=ConsumeSettings(stop_deadline_s=LONG, **consume),
        )

    def send(self, counts: dict[str, int], body: Callable[[str], bytes] | None = None) -> None:
        settings = brokers.with_full_names(self.settings())
        broker = brokers.open(settings.broker)
        broker.connect()
        left = threading.Semaphore(0)
        try:
            for name, count in counts.items():
                queue = broker.conventions.queue(f"{self.prefix}{name}")
                for _ in range(count):
                    event_id = f"{name}-{next(_numbers)}"
                    self.sent.add(event_id)
                    text = body(event_id) if body else json.dumps({"event_id": event_id, "queue": name}).encode()
                    sending = Outgoing(queue, text, headers={"event_id": event_id})
                    broker.send(sending, lambda error: left.release() if error is None else None)
            for _ in range(sum(counts.values())):
                assert left.acquire(timeout=LONG)
        finally:
            broker.close(1)

    def consume(self, model: Callable[[Any], Any], **consume: Any) -> Consuming:
        return Consuming(self, model, brokers.with_full_names(self.settings(**consume)))

    def results(self) -> Counter[str]:
        return Counter(each["event_id"] for each in self.published if each["status"] == "SUCCESS")


class Consuming:
    """A consumer in a thread."""

    def __init__(self, world: World, model: Callable[[Any], Any], settings: Settings) -> None:
        self.consumer = Consumer(
            settings,
            Threads(LoadedModel("m", "m", model), in_batches=False),
            open_broker=lambda on_connection: brokers.open(settings.broker, on_connection=on_connection),
            publisher=LocalPublisher("list", lambda docs: world.published.extend(map(json.loads, docs))),
            name="c",
            state_dir=world.folder,
            observe=world.signals.append,
            until=Until(),
        )
        self._thread = threading.Thread(target=self.consumer.run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.consumer.stop()
        self._thread.join(LONG)
        assert not self._thread.is_alive()


@pytest.fixture(params=[*KINDS, pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from _world(request.param, request, tmp_path, monkeypatch)


@pytest.fixture
def memory_world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from _world("memory", request, tmp_path, monkeypatch)


def _world(kind: str, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    class Noted(WeightedIntake):
        def __init__(self, subscription: Any, *, submit: Any, room: Callable[[], int], fail: Any) -> None:
            super().__init__(subscription, submit=submit, room=lambda: found.room(self, room()), fail=fail)
            found.intakes.append(self)

    monkeypatch.setattr(pipeline, "WeightedIntake", Noted)
    if kind == "memory":
        with Server(f"weights-{next(_numbers)}") as server:
            found = World(server.new_address().url, folder, server)
            yield found
        return
    if kind == "rabbitmq":
        url = request.getfixturevalue("rabbitmq").amqp_url
    elif kind == "kafka":
        address = request.getfixturevalue("kafka").address("SASL_PLAINTEXT")
        url = f"kafka://{address}?group=weights-{uuid.uuid4().hex[:8]}"
    else:
        url = request.getfixturevalue("embedded_broker" if kind == "embedded" else kind).url
    found = World(url, folder)
    yield found
    if kind == "rabbitmq":
        with request.getfixturevalue("rabbitmq").pika() as channel:
            for name in (*WEIGHTS, "dead"):
                channel.queue_delete(f"{found.prefix}{name}")


@pytest.mark.parametrize("window", [0, 8], ids=["the usual window", "a small window"])
def test_saturated_queues_get_their_weights_and_every_event_ends_once(world: World, window: int) -> None:
    count = world.saturated = 480
    world.send({"low": 60, "normal": 140, "high": 340})

    def model(payload: Any) -> Any:
        world.calls.append(payload["queue"])
        return {"ok": True}

    with world.consume(model, concurrency=2, window=window):
        wait_until(lambda: len(world.results()) == len(world.sent))
    seen = Counter(world.calls[:count])
    for name, weight in WEIGHTS.items():
        assert seen[name] == pytest.approx(count * weight / 12, rel=0.1), seen
    assert world.results() == dict.fromkeys(world.sent, 1)


def test_a_queue_alone_keeps_all_workers_busy(world: World) -> None:
    """The window is just what is at hand for four workers; four calls of the light queue run at once."""
    world.send({"low": 40})
    together = threading.Barrier(4)

    def model(_payload: Any) -> Any:
        together.wait(LONG)
        return {}

    with world.consume(model, concurrency=4, reply=True):
        wait_until(lambda: len(world.results()) == 40)


def test_a_late_heavy_event_passes_light_ones_that_wait(memory_world: World) -> None:
    world = memory_world
    world.send({"low": 200})
    begun: list[str] = []
    calls: list[str] = []
    go = threading.Semaphore(0)

    def model(payload: Any) -> Any:
        begun.append(payload["queue"])
        assert go.acquire(timeout=LONG)
        calls.append(payload["queue"])
        return {}

    with world.consume(model, concurrency=2):
        wait_until(lambda: bool(world.intakes) and len(world.intakes[0]._messages) > 100)
        # Else it would be next at once, and not wait: a worker that begins makes room.
        wait_until(lambda: len(begun) == 2 and world.intakes[0]._room() <= 0)
        world.send({"high": 1})
        wait_until(lambda: all(world.intakes[0]._messages._waiting[n] for n in (0, 2)))
        for _ in range(201):
            go.release()
        wait_until(lambda: len(calls) == 201)
    assert calls.index("high") <= 6  # two run, two are next


def test_dead_letters_that_are_refused_hold_up_no_other_queue_and_go_back_where_they_came_from(
    memory_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = memory_world
    assert world.server
    for name in ("REFUSED_BACKOFF", "ALONE_BACKOFF"):
        monkeypatch.setattr(dead_letter_writer, name, FullJitter(0.001, 0.01))
    address = world.server.new_address()
    world.url = address.url
    address.faults.plan(Operation.BEGIN, Effect.REFUSE, times=None)
    world.send({"high": 12}, lambda _id: b"{broken")
    bad = set(world.sent)
    world.send({"low": 30})
    with world.consume(lambda _payload: {}, concurrency=2, window=4):
        wait_until(lambda: len(world.results()) == 30)
        address.faults.clear()
        wait_until(lambda: len(world.server.held(f"{world.prefix}dead")) == 12 if world.server else False)
    letters = world.server.held(f"{world.prefix}dead")
    assert {letter.outgoing.headers["event_id"] for letter in letters} == bad
    assert {letter.outgoing.headers["original_destination"] for letter in letters} == {f"{world.prefix}high"}


def test_connections_that_are_cut_lose_nothing(memory_world: World) -> None:
    world = memory_world
    assert world.server
    address = world.server.new_address()
    world.url = address.url
    world.send({"high": 100, "normal": 100, "low": 100})
    cuts = iter(range(1000))

    def model(_payload: Any) -> Any:
        if next(cuts) % 40 == 39:
            address.faults.cut("cut")
        return {}

    with world.consume(model, concurrency=3, window=12):
        wait_until(lambda: not any(world.server.held(f"{world.prefix}{name}") for name in WEIGHTS))  # type: ignore[union-attr]
    assert world.results() == dict.fromkeys(world.sent, 1)


@pytest.mark.rabbitmq
def test_a_queue_that_is_deleted_stops_no_other(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbitmq = request.getfixturevalue("rabbitmq")
    worlds = _world("rabbitmq", request, tmp_path, monkeypatch)
    world = next(worlds)
    world.send({"high": 5, "normal": 5, "low": 5})
    with world.consume(lambda _payload: {}, concurrency=2):
        wait_until(lambda: len(world.results()) == 15)
        with rabbitmq.pika() as channel:
            channel.queue_delete(f"{world.prefix}high")
        world.send({"normal": 20, "low": 20})
        wait_until(lambda: len(world.results()) == 55)
        world.send({"high": 20})
        wait_until(lambda: len(world.results()) == 75)
    assert next(worlds, None) is None


class WeightedBus(Bus):
    """A bus of three queues."""

    @property
    def queues(self) -> Sequence[str]:
        return [part.partition("=")[0] for part in self.queue.split(",")]

    @property
    def dlq(self) -> str:
        return f"{self.queues[0]}.dead"

    def raw(self) -> Any:
        with suppress(AttributeError):
            return self.broker.raw()
        return super().raw()

    def send_to_all(self, count: int) -> tuple[set[str], set[str]]:
        """Send to each queue, every tenth event not JSON; return the ids of all events and of those."""
        raw = self.raw()
        ids = {queue: [f"{uuid.uuid4()}" for _ in range(count)] for queue in self.queues}
        for queue, those in ids.items():
            raw.send(queue, (({"event_id": each}, b"{" if n % 10 == 0 else b"{}") for n, each in enumerate(those)))
        raw.close()
        return {each for those in ids.values() for each in those}, {
            each for those in ids.values() for each in those[::10]
        }


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS[1:])
def test_kill_9_loses_nothing(
    kind: str, request: pytest.FixtureRequest, session_hub: HubProcess, tmp_path: Path
) -> None:
    broker = request.getfixturevalue("embedded_broker" if kind == "embedded" else kind)
    viewer = Viewer(session_hub.url)
    name = f"/queue/weights.{uuid.uuid4().hex[:8]}"
    queue = ",".join(f"{name}.{each}={weight}" for each, weight in WEIGHTS.items())
    bus = WeightedBus(broker, session_hub, tmp_path, viewer, queue)
    try:
        ids, broken = bus.send_to_all(200)
        slow = "sim:?min_ms=5&max_ms=10&failure_rate=0"
        options = ("--concurrency", "4", "--publish-batch", "1")
        for seen in (60, 250):
            consumer = bus.consume(*options, model=slow)
            assert viewer.wait(seen, LONG * 4)
            consumer.kill()
        summary = bus.consume(*options, "--exit-when-idle", "3s").finish()
        assert viewer.wait(len(ids), LONG)
        assert summary["received"] > 0
        assert [len(bus.drain(each)) for each in bus.queues] == [0, 0, 0]
        dead = bus.drain(bus.dlq)
        letters = {headers["event_id"] for headers, _ in dead}
        assert letters | viewer.results.keys() == ids
        # Two deaths condemn no event.
        assert broken == letters
        assert {headers["original_destination"] for headers, _ in dead} == set(bus.queues)
    finally:
        bus.close()
        viewer.close()
