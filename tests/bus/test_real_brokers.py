"""The whole bus on ActiveMQ 6, Artemis and RabbitMQ: nothing is lost over deaths of the consumer and of the broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pika import BasicProperties

from tests.bus.conftest import Bus
from tests.support.activemq6 import ActiveMQ6
from tests.support.artemis import Artemis
from tests.support.hub import HubProcess
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, infertool
from tests.support.viewer import Viewer

pytestmark = pytest.mark.long

LONG = 240
KINDS = {"activemq6": ActiveMQ6, "artemis": Artemis, "rabbitmq": RabbitMQ}
PARAMS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in KINDS]


class RealBus(Bus):
    """A bus over a broker that has its own way to be spoken to."""

    def raw(self) -> RawStomp:
        raw: RawStomp = self.broker.raw()
        return raw

    def letters(self) -> dict[str, list[str]]:
        """Empty the dead-letter queue; return the letters' own ids by event id."""
        found: dict[str, list[str]] = {}
        for headers, _ in self.drain(self.dlq):
            found.setdefault(headers["event_id"], []).append(headers.get("dlq_id", ""))
        return found

    def run(self, *arguments: str) -> Any:
        """Run a command on this broker to its end."""
        return infertool(*arguments, "--broker", self.broker.url, **CREDENTIALS)


@pytest.fixture(params=PARAMS)
def shared_bus(request: pytest.FixtureRequest, session_hub: HubProcess, tmp_path: Path) -> Iterator[RealBus]:
    """A bus over the run's broker, which nobody may stop."""
    yield from _bus(request.getfixturevalue(request.param), session_hub, tmp_path)


@pytest.fixture(params=PARAMS)
def own_bus(request: pytest.FixtureRequest, session_hub: HubProcess, tmp_path: Path) -> Iterator[RealBus]:
    """A bus over a broker of its own, which may be killed."""
    server = KINDS[request.param](tmp_path / "server")
    try:
        yield from _bus(server.start(), session_hub, tmp_path)
    finally:
        server.remove()


def _bus(broker: Any, hub: HubProcess, folder: Path) -> Iterator[RealBus]:
    viewer = Viewer(hub.url)
    bus = RealBus(broker, hub, folder, viewer)
    yield bus
    bus.close()
    viewer.close()


def is_atomic(bus: RealBus) -> bool:
    return isinstance(bus.broker, ActiveMQ6)


def assert_each_ended(bus: RealBus, ids: list[str]) -> None:
    """Check that every event was published or is a dead letter, and once only where a move is one step.

    A result that was published and not acked comes again: its double has the same event id. The doubles of a dead
    letter have one id of their own.
    """
    dead = bus.letters()
    assert bus.left() == 0
    assert bus.viewer.results.keys() | dead.keys() == set(ids)
    assert not bus.viewer.results.keys() & dead.keys()
    if is_atomic(bus):
        assert all(len(letters) == 1 for letters in dead.values())
    else:
        assert all(len(set(letters)) == 1 for letters in dead.values())
        assert len({letters[0] for letters in dead.values()}) == len(dead)


def test_two_thousand_events_over_deaths(own_bus: RealBus) -> None:
    bus = own_bus
    ids = bus.send(2000, poison=20)
    options = ("--concurrency", "16", "--max-attempts", "1")
    first = bus.consume(*options, model=failing_model(bus.folder))
    assert bus.viewer.wait(300, LONG)
    first.kill()
    if isinstance(bus.broker, RabbitMQ):
        bus.broker.store_queues()
    second = bus.consume(*options, model=failing_model(bus.folder))
    assert bus.viewer.wait(900, LONG)
    second.wait_for("broker connected")
    bus.broker.kill()
    bus.broker.start()
    assert bus.viewer.wait(2000, LONG)
    bus.consumers[-1].terminate()
    bus.consumers[-1].finish()
    bus.consume("--exit-when-idle", "3s", *options, model=failing_model(bus.folder)).finish()
    assert_each_ended(bus, ids)
    assert 100 < len(bus.viewer.alerts) < 140


def failing_model(folder: Path) -> str:
    """Return a model that fails for every twentieth event, each time it comes."""
    file = folder / "failing.py"
    file.write_text(
        "import time\n"
        "from infertool.errors import InferenceError\n"
        "class Failing:\n"
        "    def predict(self, payload):\n"
        "        time.sleep(0.005)\n"
        "        if int(payload['request_id'].removeprefix('r-')) % 20 == 0:\n"
        "            raise InferenceError('every twentieth')\n"
        "        return {'label': 'ok'}\n"
    )
    return f"{file}:Failing"


def test_dead_letters_are_replayed_and_drained(shared_bus: RealBus) -> None:
    bus = shared_bus
    bus.send(60, poison=30)
    bus.consume("--max-messages", "60").finish()
    peeked = bus.run("peek-dlq", bus.dlq, "-o", "json")
    if is_atomic(bus):
        assert peeked.returncode == 0, peeked.stderr
    else:
        assert peeked.returncode == 3
        assert "no browsing over STOMP" in peeked.stderr
        assert len(peeked.stderr.strip().splitlines()) <= 2
    replayed = bus.run("replay-dlq", bus.dlq, "--limit", "10", "--yes", "-o", "json")
    assert replayed.returncode == 0, replayed.stderr
    assert "Traceback" not in replayed.stderr
    archive = str(bus.folder / "archive.jsonl")
    drained = bus.run("drain-dlq", bus.dlq, "--to", archive, "--yes", "-o", "json")
    assert drained.returncode == 0, drained.stderr
    assert bus.left() == 10
    assert bus.dead_ids() == []
    restored = bus.run("replay-dlq", bus.dlq, "--from", archive, "--yes", "-o", "json")
    assert restored.returncode == 0, restored.stderr
    assert "Traceback" not in restored.stderr
    assert bus.left() == 20


def test_a_replay_is_no_duplicate_of_its_event(shared_bus: RealBus) -> None:
    """Artemis drops what has a `_AMQ_DUPL_ID` that it has seen at the same address, and confirms it."""
    bus = shared_bus
    raw = bus.raw()
    raw.send(bus.queue, [({"event_id": f"e{n}", "_AMQ_DUPL_ID": f"{bus.queue}-{n}"}, b"{broken") for n in range(3)])
    raw.close()
    bus.consume("--max-messages", "3").finish()
    replayed = bus.run("replay-dlq", bus.dlq, "--limit", "2", "--yes", "-o", "json")
    assert replayed.returncode == 0, replayed.stderr
    assert len(bus.drain(bus.queue)) == 2
    assert len(bus.letters()) == 1


@pytest.mark.rabbitmq
def test_a_producers_headers_do_not_shape_the_dead_letter_queue(
    rabbitmq: RabbitMQ, session_hub: HubProcess, tmp_path: Path
) -> None:
    """A SEND that is the first to a queue declares it, with the arguments that its headers name."""
    for bus in _bus(rabbitmq, session_hub, tmp_path):
        for number, more in enumerate([{"x-message-ttl": "1"}, {"exclusive": "true", "auto-delete": "true"}, {}]):
            with rabbitmq.pika() as channel:
                name = bus.queue.removeprefix("/queue/")
                channel.queue_declare(name, durable=True)
                known = BasicProperties(headers={"event_id": f"e{number}", **more}, delivery_mode=2)
                channel.basic_publish("", name, b"{broken", known)
            bus.consume("--max-messages", "1").finish()
        assert bus.letters().keys() == {"e0", "e1", "e2"}


@pytest.mark.parametrize("confirm", [True, False], ids=["confirmed", "fast"])
def test_a_load_is_sent_and_seen(shared_bus: RealBus, confirm: bool) -> None:
    bus = shared_bus
    consumer = bus.consume("--concurrency", "8")
    done = bus.run(
        "loadgen", "--queue", bus.queue, "--dlq", bus.dlq, "--qps", "100", "--duration", "5s", "--e2e",
        "--phoenix", bus.hub.url, "--settle", "60s", "--assert", "lost == 0", "-o", "json",
        *(["--confirm"] if confirm else []),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    consumer.terminate()
    consumer.finish()
