"""Queues that are gone are declared again where that is allowed: one that was deleted, and all of a new broker."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from infertool.brokers.port import Move
from infertool.errors import MoveRefusedError, UnroutableError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all, take
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
    """A virtual host without queues."""
    with rabbitmq.own_vhost() as own:
        yield own


def test_a_deleted_queue_for_dead_letters_is_declared_for_the_next_move(vhost: RabbitMQ, connect: Connect) -> None:
    broker = connect(vhost.amqp_url, declare=True)
    subscription = broker.subscribe("q", window=2)
    send_all(broker, numbered("q", 2))
    first, second = take(subscription, 2)
    subscription.move([Move(first, Outgoing("letters", b"dead"))], TIMEOUT_S)
    with vhost.pika() as channel:
        channel.queue_delete("letters")
    with pytest.raises(MoveRefusedError, match="no queue"):
        subscription.move([Move(second, Outgoing("letters", b"dead"))], TIMEOUT_S)
    subscription.move([Move(take(subscription, 1)[0], Outgoing("letters", b"dead"))], TIMEOUT_S)


def test_a_deleted_queue_is_declared_for_the_next_message(vhost: RabbitMQ, connect: Connect) -> None:
    broker = connect(vhost.amqp_url, declare=True)
    send_all(broker, numbered("q", 1))
    with vhost.pika() as channel:
        channel.queue_delete("q")
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    broker.send(Outgoing("q", b""), answers.put)
    assert isinstance(answers.get(timeout=TIMEOUT_S), UnroutableError)
    broker.send(Outgoing("q", b""), answers.put)
    assert answers.get(timeout=TIMEOUT_S) is None


def test_a_broker_that_lost_all_queues_gets_them_with_the_next_connection(
    vhost: RabbitMQ, connect: Connect, links: Links
) -> None:
    with Proxy(vhost.amqp_port) as proxy:
        broker = connect(f"amqp://127.0.0.1:{proxy.port}/{vhost.vhost}", links, declare=True)
        subscription = broker.subscribe("q", window=1)
        send_all(broker, numbered("letters", 1))
        proxy.stall()
        with vhost.pika() as channel:
            for name in ("q", "letters"):
                channel.queue_delete(name)
        proxy.cut()
        proxy.resume()
        links.wait_for(ConnectionState.CONNECTED, times=2)
        send_all(broker, numbered("q", 1))
        subscription.move([Move(take(subscription, 1)[0], Outgoing("letters", b"dead"))], TIMEOUT_S)
