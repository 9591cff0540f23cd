"""Brokers under test, and the check that adapters leave no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from infertool import brokers
from infertool.brokers.port import Broker
from infertool.brokers.stomp import broker
from infertool.net import identify
from tests.support.brokers import SERVERS, TIMEOUT_S, Links, Server, settings
from tests.support.proxy import Proxy

Connect = Callable[..., Broker]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for what comes, however long that takes on a busy machine."""
    monkeypatch.setattr(broker, "_MEASURE_S", TIMEOUT_S)
    monkeypatch.setattr(identify, "_PROBE_S", TIMEOUT_S)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


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
    before = set(threading.enumerate())

    def connect(url: str, links: Links | None = None, **changes: object) -> Broker:
        made = brokers.open(settings(url, **changes), on_connection=links)
        opened.append(made)
        made.connect()
        return made

    yield connect
    for made in opened:
        made.close(5)
    theirs = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("infertool-")]
    for thread in theirs:
        # A reader that was handed off ends after its sink, which `close` does not wait for.
        thread.join(TIMEOUT_S)
    assert [thread.name for thread in theirs if thread.is_alive()] == []
