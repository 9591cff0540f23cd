"""A broker in process, clients on it, and the check that no thread and no queue stays."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from infertool.brokers.memory.server import Server
from infertool.rpc import Client
from tests.support.brokers import TIMEOUT_S, settings

_numbers = itertools.count(1)
Connect = Callable[..., Client]


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
