"""A broker in process, clients on it, and the check that no thread and no queue stays."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from infertool.brokers.memory.server import Server
from infertool.rpc import Client
from tests.support.brokers import TIMEOUT_S, new_queue, settings

_numbers = itertools.count(1)
Connect = Callable[..., Client]


@dataclass(frozen=True)
class Place:
    """A real broker, and how it is spoken to. Over AMQP nothing declares queues but their owner."""

    server: Any
    url: str
    port: int
    declares: bool

    def new_queue(self) -> str:
        queue = new_queue()
        if self.declares:
            with self.server.pika() as channel:
                for name in (queue, f"{queue}.dead"):
                    channel.queue_declare(name.removeprefix("/queue/"), durable=True)
        return queue


PLACES = [
    pytest.param((name, url, port), marks=getattr(pytest.mark, name), id=f"{name}-{url}")
    for name, url, port in (
        ("activemq", "url", "stomp_port"), ("activemq6", "url", "stomp_port"), ("artemis", "url", "stomp_port"),
        ("rabbitmq", "url", "stomp_port"), ("rabbitmq", "amqp_url", "amqp_port"),
    )
]  # fmt: skip


def place(request: pytest.FixtureRequest) -> Place:
    """Return the place that a fixture's parameter, one of `PLACES`, names."""
    name, url, port = request.param
    server = request.getfixturevalue(name)
    return Place(server, getattr(server, url), getattr(server, port), declares=url == "amqp_url")


@pytest.fixture(params=PLACES)
def broker(request: pytest.FixtureRequest) -> Place:
    return place(request)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(f"rpc-{next(_numbers)}", login=("admin", "admin")) as server:
        yield server
        assert [name for name in server._queues if name.startswith("replies:")] == []


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """Return connected clients, which are closed at the end."""
    before = set(threading.enumerate())
    clients: list[Client] = []

    def connect(url: str = "", **changes: object) -> Client:
        client = Client(settings(url or server.url, reconnect_base_s=0.05, reconnect_max_s=0.1, **changes))
        clients.append(client)
        client.connect()
        return client

    yield connect
    for client in clients:
        client.close()
        assert client.under_way == 0
    deadline = time.monotonic() + TIMEOUT_S
    while left := [each.name for each in set(threading.enumerate()) - before if each.name.startswith("infertool")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()
