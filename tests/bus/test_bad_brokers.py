"""Brokers that cut, stall, vanish or talk garbage in the middle of a run: the consumer comes back and loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_deaths import assert_none_lost, consume_copies
from tests.support.chopper import Chopper
from tests.support.proxy import Proxy
from tests.support.running import Running

LONG = 180
EVENTS = 400
CONNECTED = b"CONNECTED\nversion:1.2\nheart-beat:500,500\n\n\0"
GARBAGE = [
    b"\0\0\0garbage\0\n\n",
    b"HTTP/1.1 500 no\r\n\r\n",
    b"MESSAGE\nno colon\n\n\0",
    b"MESSAGE\nsubscription:nobody\ncontent-length:-1\n\n\0",
    b"CONNECTED\nversion:9\n\n\0",
    bytes(range(256)) * 16,
]
# Quick to come back, and where a broker falls silent quick to notice; what is tested is that it happens. A busy broker
# may take a second to answer the first CONNECT.
RECONNECT = {"INFERTOOL_BROKER__RECONNECT_MAX_S": "0.5"}
IMPATIENT = {**RECONNECT, "INFERTOOL_BROKER__HEARTBEAT_S": "0.5", "INFERTOOL_BROKER__CONNECT_TIMEOUT_S": "4"}


@dataclass
class Address:
    """Where a consumer connects to, instead of to the broker itself."""

    url: str
    stomp_port: int


def consume(bus: Bus, url: str, patience: dict[str, str] = RECONNECT) -> Running:
    """Start a consumer of the test's queue that connects to `url`, in the broker's place."""
    behind = Bus(Address(url, bus.broker.stomp_port), bus.hub, bus.folder, bus.viewer, bus.queue, bus.consumers)
    return behind.consume(
        "--concurrency", "4", "--window", "40", model="sim:?min_ms=10&max_ms=30&failure_rate=0", **patience
    )


@pytest.fixture
def proxy(bus: Bus) -> Iterator[Proxy]:
    with Proxy(bus.broker.stomp_port) as running:
        yield running


def connections(proxy: Proxy, count: int) -> bool:
    """Wait until the proxy has seen `count` connections."""
    deadline = time.monotonic() + LONG
    while proxy.connections < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return proxy.connections >= count


def connected(proxy: Proxy, times: int) -> bool:
    """Wait until the broker has answered so many connections. The log sums repeats up."""
    deadline = time.monotonic() + LONG
    while proxy.answered < times and time.monotonic() < deadline:
        time.sleep(0.02)
    return proxy.answered >= times


def finish(bus: Bus, consumer: Running, ids: list[str]) -> dict[str, Any]:
    """Wait for every outcome, stop the consumer, and check that nothing is lost; return its summary."""
    assert bus.viewer.wait(len(ids), LONG), consumer.log.read_text()[-3000:]
    consumer.terminate()
    summary = consumer.finish()
    consume_copies(bus)
    assert_none_lost(bus, ids)
    return summary


def test_frames_cut_in_two_anywhere(bus: Bus) -> None:
    ids = bus.send(EVENTS, poison=20)
    with Chopper(bus.broker.stomp_port, most=5) as chopper:
        summary = finish(bus, consume(bus, chopper.url), ids)
        assert next(chopper.pieces) > 10 * EVENTS
    assert summary["reconnects"] == 0
    assert set((bus.viewer.results + bus.viewer.alerts).values()) == {1}


def test_garbage_in_the_middle_of_a_run(bus: Bus, proxy: Proxy) -> None:
    ids = bus.send(EVENTS, poison=20)
    consumer = consume(bus, proxy.url)
    for times, garbage in enumerate(GARBAGE, 1):
        assert bus.viewer.wait(20 * times, LONG)
        proxy.inject(garbage)
        assert connected(proxy, times + 1), f"{garbage[:20]!r} was not noticed"
    assert finish(bus, consumer, ids)["reconnects"] >= 1


def test_a_broker_that_vanishes_in_the_middle_of_a_frame(bus: Bus, proxy: Proxy) -> None:
    ids = bus.send(EVENTS, poison=20)
    consumer = consume(bus, proxy.url)
    for times, size in enumerate((1, 333, 5000), 1):
        assert bus.viewer.wait(20 * times, LONG)
        proxy.cut_after(size)
        assert connected(proxy, times + 1), f"the cut after {size} was not noticed"
    assert finish(bus, consumer, ids)["reconnects"] >= 1


def test_a_broker_that_falls_silent(bus: Bus, proxy: Proxy) -> None:
    """In the middle of a connection, before CONNECTED, and right after it."""
    ids = bus.send(EVENTS, poison=20)
    consumer = consume(bus, proxy.url, IMPATIENT)
    assert bus.viewer.wait(20, LONG)
    proxy.stall()
    consumer.wait_for("did not answer CONNECT")
    proxy.cut()
    proxy.holding.clear()
    assert proxy.holding.wait(LONG), "it did not try again"
    proxy.inject(CONNECTED)
    assert connections(proxy, proxy.connections + 1), "it did not notice that nothing follows CONNECTED"
    proxy.resume()
    summary = finish(bus, consumer, ids)
    assert summary["reconnects"] >= 1
    log = consumer.log.read_text()
    assert "no sign of life" in log
    assert "did not answer CONNECT" in log
