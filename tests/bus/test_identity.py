"""Events that share an id: each is handled and settled once, over reconnects, and none blocks another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_bad_brokers import RECONNECT, Address
from tests.support.jms import Jms, produce
from tests.support.proxy import Proxy

LONG = 120
# The largest window of these consumers that lose a connection.
WINDOW = 50


def assert_settled(bus: Bus, summary: dict[str, Any], sent: int, *queues: str) -> None:
    """Check by the broker's word that each of `sent` events is settled, or was handed back and told so.

    An ack that was under way when its connection ended may be lost. If the run ends before the broker delivers that
    event again, the broker keeps it: it is settled and left, and its result is published.
    """
    settled = summary["succeeded"] + summary["dead_lettered"]
    drained = [message for queue in queues or (bus.queue,) for message in bus.drain(queue)]
    left = [json.loads(body).get("event_id", headers["message-id"]) for headers, body in drained]
    lost_acks = settled + len(left) - sent
    assert len(left) == summary["handed_back"] + lost_acks
    if summary["reconnects"]:
        assert 0 <= lost_acks <= WINDOW
        assert lost_acks == 0 or set(left) <= set(bus.viewer.results)
    else:
        assert lost_acks == 0


def send_to_all(bus: Bus, places: Sequence[str], count: int) -> None:
    """Send `count` messages, each to all `places` at once, so that its copies have one id."""
    raw = bus.raw()
    head = f"SEND\ndestination:{','.join(places)}\npersistent:true\n\n"
    raw.write("".join(f'{head}{{"n":{n}}}\0' for n in range(count)).encode())
    raw.barrier(f"{bus.queue}-sent")
    raw.close()


def wildcard(bus: Bus) -> tuple[str, ...]:
    """Return the options for all queues below the test's, with the dead letters elsewhere."""
    return ("--queue", f"{bus.queue}.*", "--dlq", f"{bus.queue}-dead")


def test_one_message_in_several_queues_of_a_wildcard(bus: Bus) -> None:
    """The window is smaller than what is sent: one that leaked would end this at the first 40."""
    places = [f"{bus.queue}.{n}" for n in (1, 2, 3)]
    send_to_all(bus, places, 200)
    consumer = bus.consume(*wildcard(bus), "--window", "40", "--max-messages", "600", "--publish", "none")
    summary = consumer.finish()
    assert summary["succeeded"] == 600
    assert_settled(bus, summary, 600, *places)


def test_one_message_in_several_queues_of_a_composite_over_a_lost_connection(bus: Bus) -> None:
    places = [f"{bus.queue}.{n}" for n in (1, 2)]
    send_to_all(bus, places, 100)
    with Proxy(bus.broker.stomp_port) as proxy:
        behind = Bus(Address(proxy.url, 0), bus.hub, bus.folder, bus.viewer, consumers=bus.consumers)
        consumer = behind.consume(
            *wildcard(bus), "--window", str(WINDOW), "--concurrency", "4", "--max-messages", "200",
            model="sim:?min_ms=5&max_ms=15&failure_rate=0", **RECONNECT,
        )  # fmt: skip
        for seen in (20, 50, 80):
            assert bus.viewer.wait(seen, LONG)
            proxy.cut()
        summary = consumer.finish()
    assert summary["reconnects"] >= 1
    assert summary["succeeded"] == 200
    assert_settled(bus, summary, 200, *places)


@pytest.mark.activemq
def test_a_business_id_in_the_property_message_id(real_bus: Bus) -> None:
    """JMS lets a producer set it; over STOMP it stands where the broker's own id belongs."""
    events = [
        Jms(real_bus.queue, json.dumps({"n": n}), {"message-id": f"order-{n % 3}", "destination": "/queue/elsewhere"})
        for n in range(120)
    ]
    produce(real_bus.broker, events)
    consumer = real_bus.consume("--window", "20", "--max-messages", "120", "--publish", "stdout")
    output, _ = consumer.process.communicate(timeout=LONG)
    assert consumer.process.returncode == 0, consumer.log.read_text()
    *results, last = output.splitlines()
    summary = json.loads(last)
    assert sorted(json.loads(line)["original_payload"]["n"] for line in results) == list(range(120))
    assert_settled(real_bus, summary, 120)


@pytest.mark.activemq
def test_an_id_that_comes_again_after_a_reconnect_is_handled(real_bus: Bus) -> None:
    with Proxy(real_bus.broker.stomp_port) as proxy:
        behind = Bus(
            Address(proxy.url, 0), real_bus.hub, real_bus.folder, real_bus.viewer, real_bus.queue, real_bus.consumers
        )
        consumer = behind.consume("--max-messages", "40", "--window", str(WINDOW), **RECONNECT)
        for turn in (1, 2):
            produce(
                real_bus.broker,
                [
                    Jms(real_bus.queue, json.dumps({"event_id": f"{turn}-{n}"}), {"message-id": f"order-{n}"})
                    for n in range(20)
                ],
            )
            assert real_bus.viewer.wait(20 * turn, LONG)
            answered = proxy.answered
            proxy.cut()
            if turn == 1:
                wait_until(lambda: proxy.answered > answered)  # noqa: B023
        summary = consumer.finish()
    assert (summary["received"] - summary["recognised"], summary["succeeded"]) == (40, 40)
    assert_settled(real_bus, summary, 40)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
