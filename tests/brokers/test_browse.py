"""Browsing over STOMP: JMS selectors, and a connection that is lost; tests/brokers/conformance has the rest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from infertool.errors import ConnectionLostError
from infertool.message import BodyKind, Message, Outgoing
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Server, new_queue, send_all
from tests.support.proxy import Proxy


def bodies(messages: Sequence[Message]) -> list[bytes]:
    return [message.body for message in messages]


def test_a_selector_shows_what_matches_and_never_claims_to_be_complete(server: Server, connect: Connect) -> None:
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, [Outgoing(queue, b"%d" % n, headers={"n": str(n % 3)}) for n in range(9)])
    browse = broker.browse(queue, limit=10, timeout_s=TIMEOUT_S, selector="n = '1'")
    assert (bodies(browse.messages), browse.complete) == ([b"1", b"4", b"7"], False)


def test_a_connection_that_is_lost_while_browsing(connect: Connect, proxy: Proxy) -> None:
    queue, broker = new_queue(), connect(proxy.url)
    send_all(broker, [Outgoing(queue, bytes(10_000), BodyKind.BYTES)] * 100)
    proxy.cut_next_after(200_000)
    with pytest.raises(ConnectionLostError, match="lost while browsing"):
        broker.browse(queue, limit=1000, timeout_s=TIMEOUT_S)
