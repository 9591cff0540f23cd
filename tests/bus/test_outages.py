"""Nothing is lost, and the consumer comes back by itself, when a server goes away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from infertool.embedded.channel_server.channels import OK, Channel, Definition, Reply
from tests.bus.conftest import Bus
from tests.bus.test_deaths import assert_none_lost
from tests.embedded.channel_server.running import RunningHub
from tests.support.hub import HubProcess
from tests.support.viewer import Viewer

pytestmark = pytest.mark.long

LONG = 180


@pytest.mark.activemq
def test_the_broker_restarts_three_times(real_bus: Bus) -> None:
    bus = real_bus
    ids = bus.send(2000, poison=20)
    consumer = bus.consume("--concurrency", "8", model="sim:?min_ms=20&max_ms=60&failure_rate=0.02")
    for wanted in (200, 500, 800):
        assert bus.viewer.wait(wanted, LONG)
        bus.broker.stop()
        time.sleep(5)
        bus.broker.start()
    assert bus.viewer.wait(2000, LONG)
    consumer.terminate()
    summary = consumer.finish()
    assert summary["reconnects"] >= 3
    # What was seen and not acked when a connection ended, or at the stop, is with the broker still.
    bus.consume("--exit-when-idle", "1s").finish()
    assert_none_lost(bus, ids)


@pytest.fixture
def own_hub(bus: Bus) -> Iterator[Bus]:
    """The bus with a hub of its own, which may be stopped."""
    bus.viewer.close()
    bus.hub = HubProcess().start()
    bus.viewer = Viewer(bus.hub.url)
    yield bus
    bus.viewer.close()
    bus.hub.stop()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_hub_restarts(own_hub: Bus, how: str) -> None:
    bus = own_hub
    ids = bus.send(1000, poison=10)
    # While pushes wait for the hub the consumer is not idle, however long that takes.
    consumer = bus.consume(
        "--concurrency", "8", "--exit-when-idle", "2s", model="sim:?min_ms=5&max_ms=20&failure_rate=0.02"
    )
    assert bus.viewer.wait(200, LONG)
    getattr(bus.hub, how)()
    time.sleep(5)
    bus.hub.start()
    # What was broadcast before the viewer was back is missed by it, as by any dashboard: the broker is the judge.
    summary = consumer.finish()
    assert summary["succeeded"] + summary["dead_lettered"] == 1000
    assert summary["received"] == 1000
    assert bus.left() == 0
    missed = set(ids) - bus.viewer.seen
    assert len(missed) < 200 + 256, "more is missing than was under way when the hub ended"


def crashing_channels(crashed: set[str]) -> list[Definition]:
    """Channels like the hub's own, where some events crash the channel once, and one does always."""

    def handle(channel: Channel, event: str, payload: Any) -> Reply:
        number = int(payload["request_id"].removeprefix("r-"))
        if number == 77 and event == "new_result":
            raise RuntimeError("always")
        if number % 25 == 0 and payload["event_id"] not in crashed:
            crashed.add(payload["event_id"])
            raise RuntimeError("once")
        channel.broadcast("public:results" if event == "new_result" else "public:alerts", event, payload)
        return OK

    return [
        Definition("service:*", lambda _channel, _params: {}, handle),
        Definition("public:*", lambda _channel, _params: {}, lambda *_: OK),
    ]


def test_events_crash_the_channel(bus: Bus) -> None:
    crashed: set[str] = set()
    bus.viewer.close()
    with RunningHub(crashing_channels(crashed)) as hub:
        url = f"ws://127.0.0.1:{hub.port}/socket/websocket"
        bus.viewer = Viewer(url)
        ids = bus.send(200)
        consumer = bus.consume("--phoenix", url, "--max-messages", "200")
        summary = consumer.finish()
        assert bus.viewer.wait(200, LONG)
        bus.viewer.close()
    assert len(crashed) == 8
    assert summary["dead_lettered"] == 1, "the event that always crashes the channel"
    assert bus.viewer.payloads[ids[77]]["stage"] == "publish"
    assert_none_lost(bus, ids)


def test_nothing_is_acked_while_phoenix_is_away(own_hub: Bus) -> None:
    bus = own_hub
    consumer = bus.consume("--concurrency", "4", "--window", "100")
    bus.send(10)
    assert bus.viewer.wait(10, LONG)
    bus.hub.stop()
    ids = bus.send(3000, poison=30)
    time.sleep(3)
    memory = psutil.Process(consumer.process.pid).memory_info().rss
    time.sleep(3)
    assert psutil.Process(consumer.process.pid).memory_info().rss < memory * 1.05
    consumer.kill()
    held = bus.drain(bus.queue)
    assert {headers["event_id"] for headers, _ in held} == set(ids), "some were acked"
    assert sum(headers.get("redelivered") == "true" for headers, _ in held) <= 100, "more than the window was out"
    assert not bus.dead_ids()
