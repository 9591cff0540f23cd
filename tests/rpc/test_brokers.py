"""The client on real brokers: requests, replies, losses, callers that are gone, and what is left in the broker."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from infertool.errors import CallTimeoutError, ConnectionLostError, RemoteFailureError, UnroutableError
from tests.rpc.conftest import Connect, Place
from tests.support.brokers import TIMEOUT_S, new_queue
from tests.support.proxy import Proxy
from tests.support.responder import Responder, echo, failure, silent

LONG = TIMEOUT_S


def test_calls_and_failures(broker: Place, connect: Connect) -> None:
    queue, client = broker.new_queue(), connect(broker.url)
    with Responder(broker.url, queue) as responder:
        for codec in ("json", "msgpack"):
            calls = [client.call_nowait(queue, {"n": n}, timeout_s=LONG, codec=codec) for n in range(100)]
            assert [call.result().value for call in calls] == [{"n": n} for n in range(100)]
        responder.answer = lambda message: [failure(message, retryable=True)]
        with pytest.raises(RemoteFailureError) as caught:
            client.call(queue, 1, timeout_s=LONG)
        assert (caught.value.error_type, caught.value.retryable) == ("ValueError", True)
    assert client.counts.unknown == client.counts.late == client.counts.duplicates == 0


def test_no_server(broker: Place, connect: Connect) -> None:
    client = connect(broker.url)
    with pytest.raises(CallTimeoutError):
        client.call(broker.new_queue(), 1, timeout_s=0.5)


def test_a_cut(broker: Place, connect: Connect) -> None:
    queue = broker.new_queue()
    with Proxy(broker.port) as proxy, Responder(broker.url, queue, silent) as responder:
        client = connect(broker.url.replace(str(broker.port), str(proxy.port)))
        lost = client.call_nowait(queue, "lost", timeout_s=LONG)
        kept = client.call_nowait(queue, "kept", timeout_s=LONG, retry=True)
        responder.wait_for(2)
        responder.answer = echo
        proxy.cut()
        with pytest.raises(ConnectionLostError):
            lost.result()
        assert kept.result().value == "kept"
        client.close()


@pytest.mark.activemq
def test_an_expired_request_does_not_reach_a_server(activemq: Any, connect: Connect) -> None:
    queue, client = new_queue(), connect(activemq.url)
    with pytest.raises(CallTimeoutError):
        client.call(queue, "old", timeout_s=0.2)
    with Responder(activemq.url, queue) as responder:
        assert client.call(queue, "new", timeout_s=LONG).value == "new"
        assert [message.body for message in responder.wait_for(1)] == [b'"new"']


@pytest.mark.rabbitmq
def test_a_queue_that_is_not_there_fails_at_once_where_the_broker_tells(rabbitmq: Any, connect: Connect) -> None:
    client = connect(rabbitmq.amqp_url)
    began = time.monotonic()
    with pytest.raises(UnroutableError):
        client.call("nobody.has.this.queue", 1, timeout_s=LONG)
    assert time.monotonic() - began < LONG
    assert client.counts.refused == 1


@pytest.mark.rabbitmq
@pytest.mark.long
@pytest.mark.parametrize("url", ["url", "amqp_url"])
def test_10_000_calls_leave_no_queue_in_rabbitmq(rabbitmq: Any, url: str, connect: Connect) -> None:
    with rabbitmq.own_vhost() as own:
        place = Place(own, getattr(own, url), 0, declares=url == "amqp_url")
        queue = place.new_queue()
        clients = [connect(place.url) for _ in range(4)]
        with Responder(place.url, queue):
            for _ in range(25):
                calls = [
                    client.call_nowait(queue, os.getpid(), timeout_s=LONG) for client in clients for _ in range(100)
                ]
                assert {call.result().value for call in calls} == {os.getpid()}
            # One for replies a client.
            assert len([name for name in own.admin.queues() if "amq.gen" in name]) <= len(clients) + 1
        assert sum(client.counts.answered for client in clients) == 10_000
        for client in clients:
            client.close()
        deadline = time.monotonic() + TIMEOUT_S
        while any("amq.gen" in name for name in own.admin.queues()):
            assert time.monotonic() < deadline
