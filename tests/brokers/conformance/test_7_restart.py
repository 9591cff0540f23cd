"""The broker itself stops and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest

from infertool.errors import ConnectionLostError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conformance.conftest import Verdict
from tests.brokers.conformance.targets import Opened, Target
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, measured, numbered, send_all, take, wait_for_depth


class Server(Protocol):
    """A server that may be stopped."""

    def start(self) -> object: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


@runtime_checkable
class Served(Protocol):
    """A broker under test by its server."""

    @property
    def server(self) -> Server: ...


@pytest.fixture
def opened(target: Target, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Return a broker that may be stopped."""
    with target.open_own(request, tmp_path) as opened:
        yield opened


@pytest.mark.long
@pytest.mark.case("after a {how} of the broker the adapter comes back, and so do persistent messages")
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart(
    target: Target, opened: Opened, connect: Connect, links: Links, queue: str, how: str, verdict: Verdict
) -> None:
    if target.no_restart:
        verdict(target.no_restart)
        return
    assert isinstance(opened, Served)
    server = opened.server
    broker = connect(opened.url, links)
    send_all(broker, numbered(queue, 20))
    subscription = broker.subscribe(queue, window=20)
    before = take(subscription, 20)
    subscription.ack(before[:5])
    # A confirmed send behind the acks: the broker has read them.
    send_all(broker, numbered(f"{queue}.barrier", 1))
    try:
        getattr(server, how)()
        links.wait_for(ConnectionState.LOST, 2)
        assert broker.measure(queue, 1) is None
        with pytest.raises(ConnectionLostError):
            broker.send(Outgoing(queue, b"{}"), print)
    finally:
        server.start()
    links.wait_for(ConnectionState.CONNECTED, 2)
    if broker.capabilities.log:
        subscription.ack(before[5:10])
        broker.close(TIMEOUT_S)
        again = take(connect(opened.url).subscribe(queue, window=20), 10)
        assert [message.body for message in again] == [message.body for message in before[10:]]
        verdict("yes, and what is in work stays in work")
        return
    if how == "kill" and not target.keeps_acks:
        again = []
        while not {message.body for message in before[5:]} <= {message.body for message in again}:
            again += take(subscription, 1)
        assert {message.body for message in again} <= {message.body for message in before}
        verdict("yes, but acked ones may come again, too")
        return
    again = take(subscription, 15)
    assert [message.body for message in again] == [message.body for message in before[5:]]
    if broker.capabilities.depth:
        # Where what is in flight is not told, the size is what waits.
        waits_only = measured(broker, queue).in_flight is None
        wait_for_depth(broker, queue, size=0 if waits_only else 15)
