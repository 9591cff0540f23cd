"""The whole consumer on the broker in process: whatever the broker can do, and whatever goes wrong, no event is lost.

Each event ends once: as a confirmed result, or as a dead letter. Where moves are not atomic a fault may leave a dead
letter twice, with one `dlq_id`; where a consumer is killed, its results may be published again.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Address, Server
from infertool.brokers.port import Browsing
from infertool.consumer import consumer as consumer_module
from infertool.consumer import dead_letter_writer, intake
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.router import Published
from infertool.consumer.worker import Threads
from infertool.errors import InferenceError
from infertool.message import Outgoing
from infertool.models.port import LoadedModel
from infertool.net.timing import FullJitter
from infertool.publishers.local import LocalPublisher
from infertool.publishers.port import Publication
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import ConsumeSettings, DeadLetterSettings
from infertool.telemetry import signals as o
from tests.consumer.harness import LONG, wait_until

_numbers = itertools.count(1)
QUEUE, DEAD = "events", "dead"
COUNT = 60

COMBINATIONS = [
    {"atomic_move": atomic, "delivery_count": counted, "selectors": selectors, "browse": browse}
    for atomic, counted, selectors, browse in itertools.product((True, False), (True, False), (True, False), Browsing)
]


def _name(changes: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in changes.items())


@pytest.fixture(params=COMBINATIONS, ids=_name)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A broker that offers one combination; nothing waits longer than it must."""
    monkeypatch.setattr(consumer_module, "POLL_S", 0.005)
    monkeypatch.setattr(intake, "POLL_S", 0.005)
    for name in ("REFUSED_BACKOFF", "ALONE_BACKOFF"):
        monkeypatch.setattr(dead_letter_writer, name, FullJitter(0.001, 0.01))
    with Server(f"consumer-{next(_numbers)}", replace(CAPABILITIES, max_moves=10, **request.param)) as server:
        yield server


class Recorder(LocalPublisher[Published]):
    """Confirms each publication, and counts the results by event; nothing any more once its consumer was killed."""

    def __init__(self) -> None:
        super().__init__("recorder", self._record)
        self.results: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.killed = False
        self._lock = threading.Lock()

    def publish(self, publications: Sequence[Publication[Published]], *, crashes: int = 0) -> None:
        if not self.killed:
            super().publish(publications, crashes=crashes)

    def _record(self, documents: Sequence[bytes]) -> None:
        with self._lock:
            for document in map(json.loads, documents):
                counted = self.results if document["status"] == "SUCCESS" else self.failures
                counted[document["event_id"]] += 1


class Model:
    """Fails for good or once, as the event says."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, payload: Any) -> Any:
        self._seen[payload["event_id"]] += 1
        if payload.get("fails") == "always":
            raise InferenceError("it fails", retryable=False)
        if payload.get("fails") == "once" and self._seen[payload["event_id"]] == 1:
            raise InferenceError("try again")
        return {"ok": True}


class Run:
    """A consumer in a thread, at an address of its own, so that it can be cut off from the broker for good."""

    def __init__(self, server: Server, state_dir: Path, until: Until = Until()) -> None:  # noqa: B008  (it is frozen)
        self.address: Address = server.new_address()
        self.publisher = Recorder()
        self.signals: list[o.Signal] = []
        settings = Settings(
            broker=BrokerSettings(
                url=self.address.url, queue=QUEUE, receipt_timeout_s=0.2, reconnect_base_s=0.001, reconnect_max_s=0.01
            ),
            deadletter=DeadLetterSettings(queue=DEAD),
            consume=ConsumeSettings(
                concurrency=3, window=20, retry_base_s=0.001, retry_max_s=0.002, stop_deadline_s=LONG
            ),
        )
        self.consumer = Consumer(
            settings,
            Threads(LoadedModel("m", "m", Model()), in_batches=False),
            open_broker=lambda on_connection: brokers.open(settings.broker, on_connection=on_connection),
            publisher=self.publisher,
            name="c",
            state_dir=state_dir,
            observe=self.signals.append,
            until=until,
        )
        self._thread = threading.Thread(target=self.consumer.run)
        self._thread.start()

    def kill(self) -> None:
        """Cut it off for good: what it holds comes again to others, and it confirms nothing any more."""
        self.publisher.killed = True
        self.address.faults.plan(Operation.CONNECT, Effect.CUT_BEFORE, times=None)
        self.address.faults.cut("killed")

    def end(self) -> None:
        if self.publisher.killed:
            # It waits for events that come to others by now.
            self.consumer._settings = replace(
                self.consumer._settings, consume=replace(self.consumer._settings.consume, stop_deadline_s=0.01)
            )
        self.consumer.stop()
        self.wait_ended()

    def wait_ended(self) -> None:
        self._thread.join(LONG)
        assert not self._thread.is_alive()


Start = Callable[[], Run]


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def start() -> Run:
        runs.append(Run(server, tmp_path / f"{len(runs)}"))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


def send(server: Server) -> dict[str, str]:
    """Send events; return how each is to end, by its id."""
    ends = {}
    for n in range(COUNT):
        event_id = f"e{n}"
        fails = {1: "always", 2: "once"}.get(n % 6, "")
        body = json.dumps({"event_id": event_id, "fails": fails}).encode() if n % 10 else b"{broken"
        ends[event_id] = "dead" if fails == "always" or body == b"{broken" else "result"
        server.send(Outgoing(QUEUE, body, headers={"event_id": event_id}))
    return ends


def check(server: Server, runs: Sequence[Run], ends: dict[str, str], *, killed: bool = False) -> None:
    """Wait until the queue is empty, and compare what became of each event."""
    wait_until(lambda: not server.held(QUEUE))
    letters = server.held(DEAD)
    results = sum((run.publisher.results for run in runs), Counter())
    dead = Counter(letter.outgoing.headers["event_id"] for letter in letters)
    assert set(results) == {event_id for event_id, end in ends.items() if end == "result"}
    assert set(dead) == {event_id for event_id, end in ends.items() if end == "dead"}
    # A dead letter has had its alert.
    assert set(dead) <= set(sum((run.publisher.failures for run in runs), Counter()))
    if not killed:
        assert set(results.values()) == {1}
    if server.capabilities.atomic_move:
        assert set(dead.values()) == {1}
    else:
        ids = {(letter.outgoing.headers["event_id"], letter.outgoing.headers["dlq_id"]) for letter in letters}
        assert len(ids) == len({dlq_id for _, dlq_id in ids}) == len(dead)


def test_every_event_ends_once(server: Server, start: Start) -> None:
    ends = send(server)
    run = start()
    check(server, [run], ends)
    assert Counter(letter.outgoing.headers["event_id"] for letter in server.held(DEAD)).most_common(1)[0][1] == 1
    assert not [each for each in run.signals if isinstance(each, o.Warned)]


@pytest.mark.parametrize("effect", list(Effect))
def test_each_step_goes_wrong(server: Server, start: Start, effect: Effect) -> None:
    """Acks, sends and commits are cut, refused, or never confirmed, some of each."""
    ends = send(server)
    run = start()
    for operation in (Operation.ACK, Operation.SEND, Operation.BEGIN, Operation.COMMIT, Operation.SUBSCRIBE):
        run.address.faults.plan(operation, effect, times=2, skip=1)
    check(server, [run], ends)


def test_connections_are_cut_at_any_time(server: Server, start: Start) -> None:
    ends = send(server)
    run, chance = start(), random.Random(5)

    def come_to(held: int) -> bool:
        return len(server.held(QUEUE)) <= held or chance.random() < 0.5

    for _ in range(15):
        wait_until(partial(come_to, chance.randrange(COUNT)))
        run.address.faults.cut()
    check(server, [run], ends)


def test_a_stall_loses_nothing(server: Server, start: Start) -> None:
    ends = send(server)
    run = start()
    wait_until(lambda: run.publisher.results)
    run.address.faults.stall()
    run.address.faults.holding.wait(0.05)
    run.address.faults.resume()
    check(server, [run], ends)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_consumer_is_killed_and_another_goes_on(server: Server, start: Start, seed: int) -> None:
    chance = random.Random(seed)
    ends = send(server)
    first = start()
    killed_at = chance.randrange(1, COUNT // 2)
    wait_until(lambda: len(server.held(QUEUE)) <= COUNT - killed_at)
    first.kill()
    check(server, [first, start()], ends, killed=True)


def test_two_consumers_share_the_events(server: Server, start: Start) -> None:
    runs = [start(), start()]
    ends = send(server)
    check(server, runs, ends)
    # Stopping settles all that was taken.
    for run in runs:
        run.end()
    assert not server.held(QUEUE)


def test_what_is_not_settled_is_handed_back(server: Server, start: Start) -> None:
    """A stop in the middle: the rest waits for another consumer."""
    ends = send(server)
    first = start()
    wait_until(lambda: len(server.held(QUEUE)) < COUNT)
    first.end()
    left = len(server.held(QUEUE))
    second = start()
    check(server, [first, second], ends)
    done = first.publisher.results.total() + len({*first.publisher.failures})
    assert done >= COUNT - left
