"""Queues for replies over STOMP on Artemis and RabbitMQ, and the addresses that other kinds of client write."""

from __future__ import annotations

import time
from queue import SimpleQueue
from typing import Any

import pytest

from infertool.brokers.port import Broker
from infertool.brokers.stomp.conventions import reply_queue
from infertool.errors import UnroutableError, UsageError
from infertool.message import Message, Outgoing, Properties
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, new_queue, send_all, take
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ

SERVERS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("artemis", "rabbitmq")]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def ask(broker: Broker, queue: str, reply_to: str | None) -> None:
    request = Properties(correlation_id="c1", reply_to=reply_to, persistent=False)
    send_all(broker, [Outgoing(queue, b"?", properties=request)])


def answer(broker: Broker, queue: str) -> str:
    """Take one request and answer it; return where the reply went."""
    [request] = take(broker.subscribe(queue, window=1), 1)
    assert request.properties.reply_to
    to = broker.conventions.reply_queue(request.properties.reply_to)
    send_all(broker, [Outgoing(to, b"!", properties=Properties(correlation_id=request.correlation_id))])
    return to


def test_a_reply_comes_also_after_a_reconnect(server: Any, connect: Connect) -> None:
    came: SimpleQueue[list[Message]] = SimpleQueue()
    links, worker = Links(), connect(server.url)
    with Proxy(server.stomp_port) as proxy:
        caller = connect(f"stomp://127.0.0.1:{proxy.port}", links)
        replies = caller.open_replies(came.put)
        addresses = set()
        for attempt in (1, 2):
            links.wait_for(ConnectionState.CONNECTED, attempt)
            addresses.add(replies.address)
            queue = new_queue()
            ask(caller, queue, replies.address)
            answer(worker, queue)
            [reply] = came.get(timeout=TIMEOUT_S)
            assert (reply.correlation_id, reply.body) == ("c1", b"!")
            proxy.cut()
        assert len(addresses - {None}) == 2
        caller.close(TIMEOUT_S)


def test_nothing_tells_that_a_caller_is_gone_and_its_reply_is_dropped(server: Any, connect: Connect) -> None:
    links = Links()
    caller, worker, queue = connect(server.url), connect(server.url, links), new_queue()
    replies = caller.open_replies(print)
    ask(caller, queue, replies.address)
    caller.close(TIMEOUT_S)
    to = answer(worker, queue)
    assert worker.reply_exists(to, TIMEOUT_S) is None
    assert links.of(ConnectionState.LOST) == []


@pytest.mark.rabbitmq
def test_no_queue_for_replies_stays_in_rabbitmq(rabbitmq: RabbitMQ, connect: Connect) -> None:
    with rabbitmq.own_vhost() as own:
        caller, queue = connect(own.url), new_queue()
        replies = caller.open_replies(print)
        ask(caller, queue, replies.address)
        answer(caller, queue)
        assert len(own.admin.queues()) == 2
        replies.close()
        caller.close(TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while own.admin.queues() != {queue.removeprefix("/queue/"): "classic"}:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("to", ["/remote-temp-queue/ID:x-1-1:1:1", "/reply-queue/x"])
def test_addresses_of_another_kind_of_broker_are_refused_before_they_end_the_connection(
    server: Any, connect: Connect, to: str
) -> None:
    links = Links()
    broker, queue = connect(server.url, links), new_queue()
    is_rabbitmq = broker.capabilities.priorities is False
    if is_rabbitmq and to.startswith("/reply-queue/"):
        send_all(broker, [Outgoing(to, b"")])
    else:
        with pytest.raises(UnroutableError):
            broker.send(Outgoing(to, b""), print)
        assert broker.reply_exists(to, TIMEOUT_S) is False
    send_all(broker, [Outgoing(queue, b"")])
    assert links.of(ConnectionState.LOST) == []


@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("/queue/a", "/queue/a"),
        ("a.b", "/queue/a.b"),
        ("/remote-temp-queue/ID:vm-1-2:1:1", "/remote-temp-queue/ID:vm-1-2:1:1"),
        ("/reply-queue/amq.gen-x_-Y", "/reply-queue/amq.gen-x_-Y"),
        ("/reply-queue/amq.rabbitmq.reply-to.g1h/2AA+=.99==", "/reply-queue/amq.rabbitmq.reply-to.g1h/2AA+=.99=="),
    ],
)
def test_where_replies_go(text: str, queue: str) -> None:
    assert reply_queue(text) == queue


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "/topic/a", "/remote-temp-topic/ID:1", "/temp-queue/a", "/remote-temp-queue/", "/reply-queue/",
        "/remote-temp-queue/a,/queue/b", "/remote-temp-queue/a b", "/reply-queue/\n", "/queue/", "/queue/a?x=y",
        "a.>", "queue://a", "/exchange/x/y", "/reply-queue/" + "x" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_queue_for_replies(text: str) -> None:
    with pytest.raises(UsageError):
        reply_queue(text)
