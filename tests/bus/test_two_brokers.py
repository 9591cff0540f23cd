"""A consumer of two real brokers, the second for when the first is away, whose messages have the same ids."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_bad_brokers import RECONNECT, Address
from tests.conftest import new_activemq
from tests.support.activemq import ActiveMQ
from tests.support.jms import Jms, produce

pytestmark = [pytest.mark.activemq, pytest.mark.long]

LONG = 180
EVENTS = 300
# Smaller than what has been seen when a broker goes away: a place lost for each of those would end the consumer's work.
WINDOW = 40
SLOW = "sim:?min_ms=5&max_ms=15&failure_rate=0"
# Takes the last third only once the gate is open: how long a broker takes to start is not for a test to know.
GATED = """
import time
from pathlib import Path

def predict(payload):
    while int(payload["request_id"].removeprefix("r-")) >= 200 and not Path(GATE).exists():
        time.sleep(0.05)
    time.sleep(0.005)
    return {"class": "A"}
"""


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ActiveMQ, ActiveMQ]]:
    """Two empty brokers, the second not started."""
    second = ActiveMQ(tmp_path_factory.mktemp("second") / "base")
    for first in new_activemq(tmp_path_factory):
        yield first, second
    second.remove()


def at(bus: Bus, *brokers: ActiveMQ) -> Bus:
    """Return the bus for a consumer of all `brokers`, and for a judge of the first."""
    url = "stomp://" + ",".join(f"127.0.0.1:{broker.stomp_port}" for broker in brokers)
    return Bus(Address(url, brokers[0].stomp_port), bus.hub, bus.folder, bus.viewer, bus.queue, bus.consumers)


def test_a_copied_store(embedded_bus: Bus, pair: tuple[ActiveMQ, ActiveMQ]) -> None:
    """The second broker has each message of the first once more, under the same id. Both are killed in turn."""
    first, second = pair
    bus = at(embedded_bus, first, second)
    ids = bus.send(EVENTS, poison=10)
    first.stop()
    shutil.copytree(first.base / "data", second.base / "data", dirs_exist_ok=True)
    first.start()
    second.start()
    gate, model = bus.folder / "gate", bus.folder / "gated.py"
    model.write_text(GATED.replace("GATE", repr(str(gate))))
    consumer = bus.consume(
        "--concurrency", "4", "--window", f"{WINDOW}", "--exit-when-idle", "3s", model=f"{model}:predict",
        INFERTOOL_CONSUME__TIMEOUT_S="600", **RECONNECT,
    )  # fmt: skip
    assert bus.viewer.wait(EVENTS // 4, LONG)
    first.kill()
    assert bus.viewer.wait(EVENTS // 2, LONG)
    first.start()
    second.kill()
    gate.touch()
    summary = consumer.finish()
    assert summary["reconnects"] == 2
    assert summary["recognised"] > WINDOW
    assert summary["handed_back"] == 0
    # An event that was dead-lettered at one broker is another's to be dead-lettered again; results come once.
    assert set(bus.viewer.results.values()) == {1}
    assert bus.viewer.results.keys() | bus.viewer.alerts.keys() == set(ids)
    dead = Counter(bus.dead_ids())
    assert set(dead.values()) <= {1}
    assert bus.left() == 0
    second.start()
    other = at(embedded_bus, second)
    dead_there, left = other.dead_ids(), other.drain(other.queue)
    assert summary["dead_lettered"] == len(dead) + len(dead_there)
    assert len(set(dead_there)) == len(dead_there)
    assert 0 < len(left) < EVENTS
    assert not {headers["event_id"] for headers, _ in left} & set(dead_there)


def test_one_business_id_at_both(embedded_bus: Bus, pair: tuple[ActiveMQ, ActiveMQ]) -> None:
    """Other events with the same ids are events of their own, whatever the first broker's were."""
    first, second = pair
    second.start()
    bus = at(embedded_bus, first, second)
    ids = {broker: [f"{name}-{n}" for n in range(EVENTS)] for name, broker in (("first", first), ("second", second))}
    for broker, names in ids.items():
        events = [
            Jms(bus.queue, json.dumps({"event_id": name}), {"message-id": f"order-{n}"}) for n, name in enumerate(names)
        ]
        produce(broker, events)
    consumer = bus.consume(
        "--concurrency", "4", "--window", f"{WINDOW}", "--exit-when-idle", "3s", model=SLOW, **RECONNECT
    )
    assert bus.viewer.wait(EVENTS // 3, LONG)
    first.kill()
    summary = consumer.finish()
    assert set(bus.viewer.results.values()) == {1}
    assert set(ids[second]) <= bus.viewer.seen
    assert (summary["dead_lettered"], summary["handed_back"], summary["recognised"]) == (0, 0, 0)
    assert summary["succeeded"] == summary["received"] == len(bus.viewer.seen)
    assert at(embedded_bus, second).left() == 0
    # What the first still has is what had no ack yet: events that were not taken, and the window's at most.
    first.start()
    left = {json.loads(body)["event_id"] for _, body in bus.drain(bus.queue)}
    assert left >= set(ids[first]) - bus.viewer.seen
    assert len(left & bus.viewer.seen) <= WINDOW
