"""Connections that are cut, stall, or turn to garbage: noticed, replaced, and nothing of the old one is used again."""

from __future__ import annotations

import pytest

from infertool.errors import ConnectionLostError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import Links, Server, new_queue, numbered, send_all, take
from tests.support.proxy import Proxy


@pytest.mark.parametrize("size", [1, 100, 1000, 70_000])
def test_a_cut_in_the_middle_of_a_frame(
    server: Server, connect: Connect, proxy: Proxy, links: Links, size: int
) -> None:
    queue, broker = new_queue(), connect(proxy.url, links)
    sent = [Outgoing(queue, b"x" * 3000 + b"%d" % n) for n in range(50)]
    send_all(broker, sent)
    proxy.cut_after(size)
    subscription = broker.subscribe(queue, window=50)
    links.wait_for(ConnectionState.CONNECTED, 2)
    assert {message.body for message in take(subscription, 50)} == {outgoing.body for outgoing in sent}
    assert subscription.receive(1, 0.1) == []


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"MESSAGE\nno colon\n\n\0", "without a colon"),
        (b"HTTP/1.1 500 no\r\n\r\n", "not a STOMP frame"),
        (b"\0\0\0\n\n", "not a STOMP frame"),
        (b"SURPRISE\n\n\0", "unexpected frame 'SURPRISE'"),
    ],
)
def test_garbage_ends_the_connection_with_a_reason(
    server: Server, connect: Connect, proxy: Proxy, links: Links, garbage: bytes, reason: str
) -> None:
    queue, broker = new_queue(), connect(proxy.url, links, heartbeat_s=10.0)
    subscription = broker.subscribe(queue, window=10)
    proxy.inject(garbage)
    assert reason in links.wait_for(ConnectionState.LOST).reason
    links.wait_for(ConnectionState.CONNECTED, 2)
    send_all(broker, numbered(queue, 3))
    assert len(take(subscription, 3)) == 3


def test_a_server_that_falls_silent_is_noticed(server: Server, connect: Connect, proxy: Proxy, links: Links) -> None:
    queue, broker = new_queue(), connect(proxy.url, links, heartbeat_s=1.0)
    subscription = broker.subscribe(queue, window=10)
    proxy.stall()
    assert "no sign of life" in links.wait_for(ConnectionState.LOST).reason
    proxy.resume()
    links.wait_for(ConnectionState.CONNECTED, 2)
    send_all(broker, numbered(queue, 1))
    assert len(take(subscription, 1)) == 1


def test_a_server_that_falls_silent_within_a_frame_is_noticed(
    server: Server, connect: Connect, proxy: Proxy, links: Links
) -> None:
    connect(proxy.url, links, heartbeat_s=1.0)
    proxy.stall()
    proxy.inject(b"MESSAGE\ncontent-length:10\n\nhalf")
    assert "no sign of life" in links.wait_for(ConnectionState.LOST).reason
    proxy.resume()


def test_a_server_that_reads_nothing_does_not_hold_anybody_for_ever(
    server: Server, connect: Connect, proxy: Proxy, links: Links
) -> None:
    broker = connect(proxy.url, links, heartbeat_s=1.0)
    proxy.stall()
    large = Outgoing(new_queue(), b"x" * 1_000_000)
    # Far more than all buffers on the way hold, so at some point send() waits for room.
    with pytest.raises(ConnectionLostError):
        send_all(broker, [large] * 1000)
    proxy.resume()
