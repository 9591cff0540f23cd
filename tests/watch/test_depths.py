"""The depths that the live view shows, of real brokers."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.memory.server import Server
from infertool.message import Outgoing
from infertool.settings import BrokerSettings, DeadLetterSettings, Settings
from infertool.watch import bus as watch_bus
from infertool.watch.bus import DepthPoller
from infertool.watch.formatting import span
from infertool.watch.rows import _times
from infertool.watch.state import Depths, State
from tests.support.brokers import TIMEOUT_S, new_queue, numbered, send_all, settings, take


class Screen:
    """A bus that keeps the newest depths."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Callable[[Any, float], None]] = queue.SimpleQueue()
        self.depths: Depths | None = None

    def forget(self) -> None:
        """Wait for depths that are measured from now on."""
        for _ in range(self.inbox.qsize() + 1):
            self.inbox.get(timeout=TIMEOUT_S)
        self.depths = None

    def wait_for(self, depths: Depths) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while self.depths != depths:
            self.inbox.get(timeout=deadline - time.monotonic())(self, 0.0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.long
@pytest.mark.rabbitmq
def test_depths_over_amqp(rabbitmq: Any, monkeypatch: pytest.MonkeyPatch, queue_type: str) -> None:
    """What waits and, by the management API, what consumers hold; a queue that is not there has no depth."""
    monkeypatch.setattr(watch_bus, "_INTERVAL_S", 0.1)
    name = new_queue().removeprefix("/queue/")
    broker = brokers.open(settings(rabbitmq.amqp_url))
    broker.connect()
    with rabbitmq.pika() as channel:
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": queue_type})
        send_all(broker, numbered(name, 7))
        watched = Settings(
            broker=replace(settings(rabbitmq.amqp_url, management_url=rabbitmq.management_url), queue=name),
            deadletter=DeadLetterSettings(queue=f"{name}.dead"),
        )
        screen, poller = Screen(), DepthPoller(watched)
        poller.start(screen)  # type: ignore[arg-type]
        try:
            screen.wait_for(Depths(7, None))
            channel.queue_declare(f"{name}.dead", durable=True)
            send_all(broker, [Outgoing(f"{name}.dead", b"{}")])
            screen.wait_for(Depths(7, 1))
            subscription = broker.subscribe(name, window=3)
            held = take(subscription, 3)
            # Four wait, and three are held, of which the management API tells up to 5 s later.
            screen.forget()
            screen.wait_for(Depths(7, 1))
            subscription.ack(held)
            subscription.ack(take(subscription, 3))
            screen.wait_for(Depths(1, 1))
        finally:
            poller.stop()
            broker.close(TIMEOUT_S)
            for each in (name, f"{name}.dead"):
                channel.queue_delete(each)


def test_the_lag_takes_the_place_of_the_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a broker that keeps what is settled."""
    monkeypatch.setattr(watch_bus, "_INTERVAL_S", 0.01)
    with Server("watched") as server:
        partitions = server.partition("events", 2)
        for number in range(3):
            server.send(Outgoing("events", b"%d" % number))
        watched = Settings(
            broker=BrokerSettings(url=server.url, queue="events"), deadletter=DeadLetterSettings(queue="dead")
        )
        screen, poller = Screen(), DepthPoller(watched)
        poller.start(screen)  # type: ignore[arg-type]
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while screen.depths is None or screen.depths.queue != len(partitions.names) + 1:
                screen.inbox.get(timeout=deadline - time.monotonic())(screen, 0.0)
            assert screen.depths.lag_s is not None
        finally:
            poller.stop()
    state = State("bus", 10, depths=Depths(3, None, 75.0))
    assert f"lag 3 {span(75.0)}" in "".join(text for text, _ in _times(state, 0.0))
