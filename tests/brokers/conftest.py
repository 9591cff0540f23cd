"""Brokers under test, and the check that adapters leave no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from infertool import brokers
from infertool.brokers.port import Broker
from tests.support.brokers import SERVERS, Links, Server, settings
from tests.support.embedded import EmbeddedBroker
from tests.support.proxy import Proxy

Connect = Callable[..., Broker]


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker().start()
    yield broker
    broker.stop()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.stomp_port) as running:
        yield running


@pytest.fixture
def links() -> Links:
    return Links()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open and connect brokers; they are closed at the end, and not one thread of theirs may stay."""
    opened: list[Broker] = []

    def connect(url: str, links: Links | None = None, **changes: object) -> Broker:
        broker = brokers.open(settings(url, **changes), on_link=links)
        opened.append(broker)
        broker.connect()
        return broker

    yield connect
    for broker in opened:
        broker.close(5)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("infertool-stomp")] == []
