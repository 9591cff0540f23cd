"""Looking at a queue changes nothing, and says whether it saw all."""

from __future__ import annotations

import pytest

from infertool.brokers.headers import text
from infertool.errors import ConnectionLostError, RefusedError
from infertool.message import BodyKind, Outgoing
from tests.support.brokers import TIMEOUT_S, new_queue, numbered, send_all, take


def bodies(messages):
    return [message.body for message in messages]


def test_shows_what_is_there_in_order_and_leaves_it(server, connect):
    queue, broker = new_queue(), connect(server.url)
    sent = numbered(queue, 120)
    send_all(broker, sent)
    for _ in range(2):
        browse = broker.browse(queue, limit=1000, timeout_s=TIMEOUT_S)
        assert bodies(browse.messages) == [message.body for message in sent]
        assert (browse.complete, browse.depth) == (True, 120)
    taken = take(broker.subscribe(queue, window=120), 120)
    assert bodies(taken) == bodies(browse.messages)
    assert [message.id for message in taken] == [message.id for message in browse.messages]
    assert not any(message.redelivered for message in taken)


def test_keeps_headers_and_kind(server, connect):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, [Outgoing(queue, b"\0\xff", BodyKind.BYTES, {"a:b": "1\n2", "priority": "7"})])
    (message,) = broker.browse(queue, limit=10, timeout_s=TIMEOUT_S).messages
    assert (message.kind, message.body, message.source) == (BodyKind.BYTES, b"\0\xff", queue)
    assert (message.headers["a:b"], text(message)["priority"]) == ("1\n2", "7")


def test_an_empty_queue(server, connect):
    browse = connect(server.url).browse(new_queue(), limit=10, timeout_s=TIMEOUT_S)
    assert (browse.messages, browse.complete, browse.depth) == ([], True, 0)


def test_a_limit_is_no_complete_view(server, connect):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, numbered(queue, 12))
    browse = broker.browse(queue, limit=5, timeout_s=TIMEOUT_S)
    assert (len(browse.messages), browse.complete, browse.depth) == (5, False, 12)


def test_a_selector_shows_what_matches_and_never_claims_to_be_complete(server, connect):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, [Outgoing(queue, b"%d" % n, headers={"n": str(n % 3)}) for n in range(9)])
    browse = broker.browse(queue, limit=10, timeout_s=TIMEOUT_S, selector="n = '1'")
    assert (bodies(browse.messages), browse.complete) == ([b"1", b"4", b"7"], False)


def test_a_bad_selector_is_refused_and_the_connection_lives(server, connect):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, numbered(queue, 1))
    with pytest.raises(RefusedError) as caught:
        broker.browse(queue, limit=10, timeout_s=TIMEOUT_S, selector="n = = 1")
    assert caught.value.reason
    assert len(broker.browse(queue, limit=10, timeout_s=TIMEOUT_S).messages) == 1


def test_without_a_connection(server, connect):
    broker = connect(server.url)
    broker.close(5)
    with pytest.raises(ConnectionLostError):
        broker.browse(new_queue(), limit=10, timeout_s=TIMEOUT_S)


def test_a_connection_that_is_lost_while_browsing(connect, proxy):
    queue, broker = new_queue(), connect(proxy.url)
    send_all(broker, [Outgoing(queue, bytes(10_000), BodyKind.BYTES)] * 100)
    proxy.cut_next_after(200_000)
    with pytest.raises(ConnectionLostError, match="lost while browsing"):
        broker.browse(queue, limit=1000, timeout_s=TIMEOUT_S)


@pytest.mark.activemq
def test_a_default_activemq_shows_400_and_that_is_not_called_complete(activemq, connect):
    queue, broker = new_queue(), connect(activemq.url)
    send_all(broker, numbered(queue, 450))
    browse = broker.browse(queue, limit=1000, timeout_s=TIMEOUT_S)
    assert (len(browse.messages), browse.complete, browse.depth) == (400, False, 450)
