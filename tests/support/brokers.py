"""Brokers under test, and the few steps every broker test takes.

A test that asks for the fixture `server` (tests/brokers/conftest.py) runs against each of `SERVERS`. To add a broker:
give it a session fixture that looks like `tests.support.activemq.ActiveMQ` (`url`, `stomp_port`), and name it here.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from infertool import brokers
from infertool.brokers.port import Broker, Depth, Subscription
from infertool.message import Message, Outgoing
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings

SERVERS = ("activemq", "embedded_broker")
# Brokers with fewer capabilities: see `tests.brokers.test_dialects`.
TIMEOUT_S = 120.0
# A place that a broker refuses to send to: the temporary queue of a connection that is gone.
NOBODYS = "/remote-temp-queue/ID:nobody-1-1:1:1"
_numbers = itertools.count(1)


class Server(Protocol):
    stomp_port: int

    @property
    def url(self) -> str: ...


class Links:
    """Records what a supervised connection tells."""

    def __init__(self) -> None:
        self.events: list[ConnectionEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: ConnectionEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, state: ConnectionState) -> list[ConnectionEvent]:
        return [event for event in self.events if event.state is state]

    def wait_for(self, state: ConnectionState, times: int = 1) -> ConnectionEvent:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(state)) >= times, TIMEOUT_S), self.events
            return self.of(state)[times - 1]


def settings(url: str, **changes: Any) -> BrokerSettings:
    usual = {"url": url, "connect_timeout_s": TIMEOUT_S, "user": "admin", "password": Secret("admin")}
    return BrokerSettings(**{**usual, **changes})


def new_queue() -> str:
    """Return the name of a queue nobody used before."""
    return f"/queue/test.{os.getpid()}.{next(_numbers)}"


def send_all(broker: Broker, messages: Iterable[Outgoing]) -> None:
    """Send, and return once the broker confirmed every one."""
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    count = 0
    for message in messages:
        broker.send(message, answers.put)
        count += 1
    for _ in range(count):
        error = answers.get(timeout=TIMEOUT_S)
        assert error is None, error


def numbered(destination: str, count: int) -> list[Outgoing]:
    return [Outgoing(destination, b'{"n": %d}' % n) for n in range(count)]


def measured(broker: Broker, queue: str) -> Depth:
    """Return the figures of a queue that the broker tells of."""
    depth = broker.measure(queue, TIMEOUT_S)
    assert depth is not None
    return depth


def wait_for_depth(broker: Broker, queue: str, **figures: int) -> Depth:
    """Wait until the broker tells such figures of a queue. Artemis counts a message after it has confirmed it."""
    deadline = time.monotonic() + TIMEOUT_S
    while any(getattr(depth := measured(broker, queue), name) != figure for name, figure in figures.items()):
        assert time.monotonic() < deadline, depth
        time.sleep(0.05)
    return depth


def is_empty(server: Any, queue: str) -> bool:
    """Return True if a server tells of no message in a queue."""
    if hasattr(server, "pika"):  # RabbitMQ tells nothing over STOMP
        with server.pika() as channel:
            name = queue.removeprefix("/queue/")
            return int(channel.queue_declare(name, passive=True).method.message_count) == 0
    broker = brokers.open(settings(f"stomp://127.0.0.1:{server.stomp_port}"))
    broker.connect()
    try:
        return not measured(broker, queue).size
    finally:
        broker.close(TIMEOUT_S)


@runtime_checkable
class CountsStaleAcks(Protocol):
    """What the subscriptions of every adapter count."""

    @property
    def stale_acks(self) -> int: ...


def stale_acks(subscription: Subscription) -> int:
    """Return the number of acks that came too late."""
    assert isinstance(subscription, CountsStaleAcks)
    return subscription.stale_acks


def take(subscription: Subscription, count: int) -> list[Message]:
    """Receive exactly `count` messages, or fail."""
    taken: list[Message] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(taken) < count:
        assert time.monotonic() < deadline, f"{len(taken)} of {count} messages came"
        taken += subscription.receive(count - len(taken), 1.0)
    return taken
