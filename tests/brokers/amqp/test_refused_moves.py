"""Moves that RabbitMQ refuses, or that wait in vain: their messages come again, and the broker counts no delivery."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from infertool.brokers.port import DeliversOnReader, Move
from infertool.errors import MoveRefusedError, StaleMessagesError
from infertool.message import Message, Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.amqp.conftest import Declare, refuse_messages, wait_until
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all, stale_acks, take
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq


@pytest.mark.parametrize("sends", [False, True])
def test_moves_that_wait_in_vain_during_an_alarm_are_refused_and_their_messages_come_again(
    own: RabbitMQ, connect: Connect, links: Links, caplog: pytest.LogCaptureFixture, sends: bool
) -> None:
    with own.pika() as channel:
        channel.queue_declare("q", durable=True)
    patient = connect(own.amqp_url, receipt_timeout_s=TIMEOUT_S)
    broker = connect(own.amqp_url, links, receipt_timeout_s=TIMEOUT_S)
    send_all(patient, numbered("q", 3))
    subscription = broker.subscribe("q", window=3)
    messages = take(subscription, 3)
    refuse_messages(own, patient if sends else broker, caplog)
    # The broker tells of the alarm once something is sent: a second send would not go out at all.
    moved = messages[:1] if sends else messages[:2]
    moves = [Move(message, Outgoing("letters", b"dead")) for message in moved]
    if sends:
        begun = subscription.start_move(moves, 0.1)
        wait_until(lambda: caplog.text.count("takes no messages now") == 2)
        with pytest.raises(MoveRefusedError, match="takes no messages now"):
            begun.commit()
    else:
        with pytest.raises(MoveRefusedError, match="takes no messages now"):
            subscription.move(moves, 0.1)
    again = take(subscription, len(moved))
    assert [message.body for message in again] == [message.body for message in moved]
    assert all(message.redelivered for message in again)
    subscription.ack([*messages[len(moved) :], *again])
    wait_until(lambda: own.admin.unacked("q") == 0)
    assert links.of(ConnectionState.LOST) == []


def test_refused_moves_do_not_count_as_deliveries(rabbitmq: RabbitMQ, declare: Declare, connect: Connect) -> None:
    queue, letters = declare(x_queue_type="quorum", x_delivery_limit=2), declare()
    broker = connect(rabbitmq.amqp_url)
    subscription = broker.subscribe(queue, window=2)
    send_all(broker, numbered(queue, 2))
    messages = take(subscription, 2)
    for _ in range(4):
        with pytest.raises(MoveRefusedError):
            subscription.move([Move(message, Outgoing("nowhere", b"dead")) for message in messages], TIMEOUT_S)
        earlier, messages = messages, take(subscription, 2)
        assert [message.body for message in messages] == [message.body for message in earlier]
        with pytest.raises(StaleMessagesError):
            subscription.move([Move(earlier[0], None)], TIMEOUT_S)
    first, second = messages
    subscription.move([Move(first, Outgoing(letters, b"dead"))], TIMEOUT_S)
    subscription.ack([second])
    wait_until(lambda: rabbitmq.admin.unacked(queue) == 0)
    assert stale_acks(subscription) == 0
    with rabbitmq.pika() as channel:
        assert channel.queue_declare(queue, passive=True).method.message_count == 0


def test_what_was_given_back_is_delivered_on_the_thread_that_reads(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect
) -> None:
    queue = declare()
    broker = connect(rabbitmq.amqp_url)
    subscription = broker.subscribe(queue, window=2)
    assert isinstance(subscription, DeliversOnReader)
    came: SimpleQueue[tuple[str, str, Message]] = SimpleQueue()
    stuck, freed = threading.Event(), threading.Event()

    def on_messages(messages: list[Message]) -> None:
        for message in messages:
            came.put((threading.current_thread().name, message.body.decode(), message))
        if messages[0].redelivered:
            stuck.set()
            assert freed.wait(TIMEOUT_S)

    subscription.deliver_to(on_messages)
    send_all(broker, numbered(queue, 1))
    name, _, message = came.get(timeout=TIMEOUT_S)
    with pytest.raises(MoveRefusedError):
        subscription.move([Move(message, Outgoing("nowhere", b"dead"))], TIMEOUT_S)
    assert stuck.wait(TIMEOUT_S)
    assert came.get(timeout=TIMEOUT_S)[:2] == (name, '{"n": 0}')
    subscription.hand_off_reader()
    send_all(broker, [Outgoing(queue, b"next")])
    assert came.get(timeout=TIMEOUT_S)[1] == "next"
    freed.set()
