"""RabbitMQ over STOMP: a move that is refused ends no connection that has messages, so that no delivery is counted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from infertool.brokers.port import Move
from infertool.errors import ConnectionLostError, MoveRefusedError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, new_queue, numbered, send_all, take
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq

Refusing = Callable[[RabbitMQ, str], AbstractContextManager[None]]


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def queue(rabbitmq: RabbitMQ) -> Iterator[str]:
    """A queue that drops what was delivered three times."""
    queue = new_queue()
    name = queue.removeprefix("/queue/")
    with rabbitmq.pika() as channel:
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 2})
        yield queue
        channel.queue_delete(name)
        channel.queue_delete(f"{name}.dead")


@contextmanager
def _declared_otherwise(rabbitmq: RabbitMQ, name: str) -> Iterator[None]:
    with rabbitmq.pika() as channel:
        channel.queue_declare(name, durable=True, arguments={"x-max-priority": 3})
        yield
        channel.queue_delete(name)


@contextmanager
def _full(rabbitmq: RabbitMQ, name: str) -> Iterator[None]:
    """RabbitMQ closes the connection of what does not fit, without a word."""
    with rabbitmq.pika() as channel:
        channel.queue_declare(name, durable=True)
        channel.basic_publish("", name, b"the only one")
    with rabbitmq.admin.policy(name, **{"max-length": 1, "overflow": "reject-publish"}):
        _until(lambda: _is_refused(rabbitmq, name))
        yield


def _is_refused(rabbitmq: RabbitMQ, name: str) -> bool:
    with rabbitmq.pika() as channel:
        channel.confirm_delivery()
        with contextlib.suppress(Exception):  # pika's NackError
            channel.basic_publish("", name, b"one more")
            return False
    return True


def _amqp(rabbitmq: RabbitMQ, connect: Connect, queue: str, count: int) -> None:
    """Send to a queue with arguments, which over STOMP cannot be sent to."""
    send_all(connect(rabbitmq.amqp_url), numbered(queue.removeprefix("/queue/"), count))


@pytest.mark.parametrize("refusing", [_declared_otherwise, _full])
def test_refused_moves_do_not_count_as_deliveries(
    rabbitmq: RabbitMQ, queue: str, connect: Connect, links: Links, refusing: Refusing
) -> None:
    letters = f"{queue}.dead"
    broker = connect(rabbitmq.url, links)
    subscription = broker.subscribe(queue, window=3)
    _amqp(rabbitmq, connect, queue, 3)
    first, *others = take(subscription, 3)
    lost = len(links.of(ConnectionState.LOST))
    with refusing(rabbitmq, letters.removeprefix("/queue/")):
        for _ in range(4):
            with pytest.raises(MoveRefusedError):
                subscription.move([Move(first, Outgoing(letters, b"dead"))], TIMEOUT_S)
            [again] = take(subscription, 1)
            assert (again.body, again.redelivered) == (first.body, True)
            first = again
    subscription.move([Move(first, Outgoing(letters, b"dead"))], TIMEOUT_S)
    subscription.ack(others)
    _until(lambda: rabbitmq.admin.unacked(queue.removeprefix("/queue/")) == 0)
    assert len(links.of(ConnectionState.LOST)) == lost
    with rabbitmq.pika() as channel:
        assert channel.queue_declare(queue.removeprefix("/queue/"), passive=True).method.message_count == 0


def test_a_move_whose_line_ends_is_lost_and_not_refused(rabbitmq: RabbitMQ, connect: Connect, links: Links) -> None:
    queue, letters = new_queue(), new_queue()
    with Proxy(rabbitmq.stomp_port) as proxy:
        broker = connect(f"stomp://127.0.0.1:{proxy.port}", links)
        subscription = broker.subscribe(queue, window=3)
        send_all(broker, numbered(queue, 3))
        first, second, third = take(subscription, 3)
        subscription.move([Move(first, Outgoing(letters, b"dead"))], TIMEOUT_S)
        moving = subscription.start_move([Move(second, Outgoing(letters, b"dead"))], TIMEOUT_S)
        proxy.stall()
        cut = threading.Thread(target=proxy.cut)
        cut.start()
        with pytest.raises(ConnectionLostError):
            moving.commit()
        cut.join()
        proxy.resume()
        links.wait_for(ConnectionState.CONNECTED, times=2)
        again = take(subscription, 2)
        assert sorted(message.body for message in again) == sorted([second.body, third.body])
        subscription.move([Move(message, Outgoing(letters, b"dead")) for message in again], TIMEOUT_S)
    letters_there = connect(rabbitmq.url).subscribe(letters, window=3)
    assert len(take(letters_there, 3)) == 3
