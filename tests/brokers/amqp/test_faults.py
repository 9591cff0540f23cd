"""Queues that are deleted, alarms, timeouts, garbage, and lines that end in the middle of a frame."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import Any, cast

import pytest
from pika.exceptions import ConnectionClosedByBroker
from pika.spec import BasicProperties

from infertool.brokers.port import DeliversOnReader, Move, Widens
from infertool.errors import ReceiptTimeoutError, RefusedError, StaleMessagesError
from infertool.message import BodyKind, Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.amqp.conftest import Declare, wait_until
from tests.brokers.conftest import Connect
from tests.support.amqpproxy import AmqpFrameProxy, AmqpProxy, method
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all, stale_acks, take
from tests.support.rabbitmq import RabbitMQ
from tests.support.usual_pair import connection

pytestmark = pytest.mark.rabbitmq

DELIVER = 0x003C003C


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_queue_that_is_deleted_while_consuming(
    rabbitmq: RabbitMQ,
    declare: Declare,
    connect: Connect,
    links: Links,
    caplog: pytest.LogCaptureFixture,
    queue_type: str,
    grows: bool,
) -> None:
    queue = declare(x_queue_type=queue_type)
    broker = connect(rabbitmq.amqp_url, links)
    subscription = broker.subscribe(queue, window=10)
    assert isinstance(subscription, Widens)
    if grows:
        subscription.widen(15)
    send_all(broker, numbered(queue, 2))
    held = take(subscription, 2)
    with rabbitmq.pika() as channel:
        channel.queue_delete(queue)
        wait_until(lambda: "was deleted" in caplog.text)
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": queue_type})
    wait_until(lambda: "subscribed to again" in caplog.text or links.of(ConnectionState.LOST))
    # RabbitMQ ends a connection that consumes from a quorum queue while it is being made (3.10: noproc in its log).
    lost = [each.reason for each in links.of(ConnectionState.LOST)]
    assert not lost or (queue_type == "quorum" and all("INTERNAL_ERROR" in reason for reason in lost))
    wait_until(lambda: links.events[-1].state is ConnectionState.CONNECTED)
    lost_by_broker = len(links.of(ConnectionState.LOST))
    send_all(broker, numbered(queue, 3))
    again = take(subscription, 3)
    assert not any(message.redelivered for message in again)
    subscription.ack(held)
    assert stale_acks(subscription) == 2
    subscription.ack(again)
    assert len(links.of(ConnectionState.LOST)) == lost_by_broker
    send_all(broker, numbered(queue, 20))
    held = take(subscription, 15 if grows else 10)
    assert subscription.receive(1, 0.2) == []
    subscription.ack(held)
    assert caplog.text.count("was deleted") == 1


@pytest.mark.parametrize("settles", [False, True])
def test_an_event_that_is_done_after_its_queue_was_deleted_ends_no_connection(
    rabbitmq: RabbitMQ,
    declare: Declare,
    connect: Connect,
    links: Links,
    caplog: pytest.LogCaptureFixture,
    settles: bool,
) -> None:
    queue, letters, other = declare(), declare(), declare()
    broker = connect(rabbitmq.amqp_url, links)
    subscription, others = broker.subscribe(queue, window=10), broker.subscribe(other, window=10)
    send_all(broker, [*numbered(queue, 2), *numbered(other, 1)])
    [first, second], [there] = take(subscription, 2), take(others, 1)
    began = subscription.start_move([Move(second, Outgoing(letters, b"dead"))], TIMEOUT_S)
    with rabbitmq.pika() as channel:
        channel.queue_delete(queue)
    consumer = cast("Any", subscription)._consumer
    wait_until(lambda: consumer.is_closed)
    if settles:
        subscription.ack([first])
        assert stale_acks(subscription) == 1
    else:
        with pytest.raises(StaleMessagesError):
            subscription.move([Move(first, None)], TIMEOUT_S)
    with pytest.raises(StaleMessagesError):
        began.commit()
    others.move([Move(there, Outgoing(letters, b"dead"))], TIMEOUT_S)
    assert links.of(ConnectionState.LOST) == []


def test_an_exclusive_subscription_stays_as_wide_as_it_is(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect
) -> None:
    queue = declare()
    broker = connect(rabbitmq.amqp_url)
    subscription = broker.subscribe(queue, window=2, exclusive=True)
    assert isinstance(subscription, Widens)
    subscription.widen(4)
    send_all(broker, numbered(queue, 5))
    subscription.ack(take(subscription, 2))
    assert len(take(subscription, 2)) == 2
    assert subscription.receive(1, 0.2) == []


def test_close_ends_the_search_for_a_deleted_queue(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    queue = declare()
    broker = connect(rabbitmq.amqp_url)
    broker.subscribe(queue, window=1)
    with rabbitmq.pika() as channel:
        channel.queue_delete(queue)
    wait_until(lambda: "was deleted" in caplog.text)
    broker.close(TIMEOUT_S)


def test_an_alarm_lets_sends_wait_and_acks_pass(
    own: RabbitMQ, connect: Connect, links: Links, caplog: pytest.LogCaptureFixture
) -> None:
    with own.pika() as channel:
        channel.queue_declare("q", durable=True)
    patient = connect(own.amqp_url, receipt_timeout_s=TIMEOUT_S)
    broker = connect(own.amqp_url, links, receipt_timeout_s=3.0)
    send_all(patient, numbered("q", 3))
    subscription = broker.subscribe("q", window=3)
    messages = take(subscription, 3)
    own.admin.take_no_messages()
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    broker.send(Outgoing("q", b"late"), answers.put)
    error = answers.get(timeout=TIMEOUT_S)
    assert isinstance(error, ReceiptTimeoutError)
    assert "takes no messages now" in caplog.text
    with pytest.raises(ReceiptTimeoutError, match="takes no messages now"):
        broker.send(Outgoing("q", b"later"), answers.put)
    subscription.ack(messages)
    wait_until(lambda: own.admin.unacked("q") == 0)
    assert broker.measure("q", TIMEOUT_S) is not None

    sent = threading.Event()

    def ended(error: Exception | None) -> None:
        if error is None:
            sent.set()

    patient.send(Outgoing("q", b"waits"), ended)
    own.admin.take_messages()
    assert sent.wait(TIMEOUT_S)
    wait_until(lambda: "takes messages again" in caplog.text)
    send_all(patient, numbered("q", 1))
    assert links.of(ConnectionState.LOST) == []


def test_a_consumer_timeout_says_so_and_the_message_comes_again(own: RabbitMQ, connect: Connect, links: Links) -> None:
    own.admin.set(consumer_timeout=500, channel_tick_interval=500)
    with own.pika() as channel:
        channel.queue_declare("q", durable=True)
    broker = connect(own.amqp_url, links)
    send_all(broker, numbered("q", 1))
    subscription = broker.subscribe("q", window=1)
    [first] = take(subscription, 1)
    lost = links.wait_for(ConnectionState.LOST)
    assert "consumer_timeout" in lost.reason
    [again] = take(subscription, 1)
    assert (again.body, again.redelivered) == (first.body, True)
    subscription.ack([again])


def test_50_megabytes_there_and_to_the_dead_letters(own: RabbitMQ, connect: Connect) -> None:
    own.admin.take_messages()
    with own.pika() as channel:
        channel.queue_declare("q", durable=True)
        channel.queue_declare("dead", durable=True)
    body = bytes(range(256)) * 200_000
    broker = connect(own.amqp_url, receipt_timeout_s=TIMEOUT_S)
    send_all(broker, [Outgoing("q", body, BodyKind.BYTES)])
    subscription = broker.subscribe("q", window=2)
    [message] = take(subscription, 1)
    assert message.body == body
    subscription.move([Move(message, Outgoing("dead", message.body, message.kind))], TIMEOUT_S)
    [letter] = take(broker.subscribe("dead", window=1), 1)
    assert letter.body == body


def test_a_message_larger_than_the_broker_takes(own: RabbitMQ, connect: Connect) -> None:
    with own.pika() as channel:
        channel.queue_declare("q", durable=True)
    broker, answers = connect(own.amqp_url, receipt_timeout_s=TIMEOUT_S), SimpleQueue[Exception | None]()
    broker.send(Outgoing("q", b"x" * (128 * 1024 * 1024 + 1)), answers.put)
    error = answers.get(timeout=TIMEOUT_S)
    assert isinstance(error, RefusedError)
    assert "larger than" in error.reason


def test_a_line_that_ends_in_the_middle_of_a_message(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect, links: Links
) -> None:
    queue = declare()
    with AmqpProxy(rabbitmq.amqp_port) as proxy:
        broker = connect(proxy.url, links)
        send_all(broker, [Outgoing(queue, b"x" * 1_000_000), Outgoing(queue, b"2")])
        proxy.cut_after(300_000)
        subscription = broker.subscribe(queue, window=2)
        messages = take(subscription, 2)
        assert [len(message.body) for message in messages] == [1_000_000, 1]
        assert links.of(ConnectionState.LOST)
        broker.close(TIMEOUT_S)


def test_garbage_in_place_of_a_frame_ends_the_connection_and_the_message_comes_again(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect, links: Links
) -> None:
    queue, done = declare(), threading.Event()

    def spoil(frame: bytes) -> bytes:
        if method(frame) == DELIVER and not done.is_set():
            done.set()
            return b"\x07garbage" + frame
        return frame

    with AmqpFrameProxy(rabbitmq.amqp_port, to_client=spoil) as proxy:
        send_all(connect(rabbitmq.amqp_url), numbered(queue, 1))
        broker = connect(proxy.url, links)
        subscription = broker.subscribe(queue, window=2)
        [message] = take(subscription, 1)
        assert message.epoch == 2
        assert "something else than AMQP" in links.of(ConnectionState.LOST)[0].reason
        broker.close(TIMEOUT_S)


def test_a_model_that_takes_longer_than_the_heartbeats(rabbitmq: RabbitMQ, declare: Declare, connect: Connect) -> None:
    """Though a busy machine may be silent for longer than one second, too."""
    assert any(is_kept(rabbitmq, declare(), connect, heartbeat_s) for heartbeat_s in (1.0, 4.0, 16.0))


def is_kept(rabbitmq: RabbitMQ, queue: str, connect: Connect, heartbeat_s: float) -> bool:
    """Return True if a connection with such heartbeats outlives a call of five of them."""
    links = Links()
    broker = connect(rabbitmq.amqp_url, links, heartbeat_s=heartbeat_s)
    subscription = broker.subscribe(queue, window=1)
    busy, over = threading.Event(), threading.Event()

    def model(_messages: object) -> None:
        # On the thread that reads, as a quick model is called; another reads on after a hand-off.
        busy.set()
        over.wait(TIMEOUT_S)

    assert isinstance(subscription, DeliversOnReader)
    subscription.deliver_to(model)
    send_all(broker, numbered(queue, 1))
    assert busy.wait(TIMEOUT_S)
    subscription.hand_off_reader()
    # Several times what the broker waits for a heartbeat.
    time.sleep(5 * heartbeat_s)
    over.set()
    if links.of(ConnectionState.LOST):
        return False
    send_all(broker, numbered(queue, 1))
    return links.of(ConnectionState.LOST) == []


def test_several_hosts(rabbitmq: RabbitMQ, declare: Declare, connect: Connect) -> None:
    broker = connect(f"amqp://127.0.0.1:1,127.0.0.1:{rabbitmq.amqp_port}")
    assert broker.address == rabbitmq.amqp_url
    send_all(broker, numbered(declare(), 1))


def test_questions_take_no_more_channels_than_the_broker_allows(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect, links: Links
) -> None:
    queue = declare()
    broker = connect(rabbitmq.amqp_url, links)
    # RabbitMQ allows 2047.
    for _ in range(1100):
        assert broker.measure(queue, TIMEOUT_S) is not None
        assert broker.measure("not.there", TIMEOUT_S) is None
    send_all(broker, numbered(queue, 1))
    assert len(take(broker.subscribe(queue, window=1), 1)) == 1
    assert links.of(ConnectionState.LOST) == []


def test_a_question_without_an_answer_in_time_ends_no_connection(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect, links: Links
) -> None:
    queue = declare()
    with AmqpProxy(rabbitmq.amqp_port) as proxy:
        broker = connect(proxy.url, links)
        proxy.stall()
        assert broker.measure(queue, 0.2) is None
        proxy.resume()
        assert broker.measure(queue, TIMEOUT_S) is not None
        assert links.of(ConnectionState.LOST) == []
        broker.close(TIMEOUT_S)


@pytest.mark.parametrize(
    "broken", [b"\x01hz\x00\x00\x00\x04abcd", b"\x01hS\x00\x00\x00\x63abcd"], ids=["type", "length"]
)
def test_rabbitmq_takes_no_properties_that_cannot_be_read(rabbitmq: RabbitMQ, declare: Declare, broken: bytes) -> None:
    """So what such a message would do to a consumer is shown without it (`test_messages.py`)."""
    queue = declare()
    spoil = lambda frame: frame.replace(b"\x01hS\x00\x00\x00\x04abcd", broken)  # noqa: E731
    with AmqpFrameProxy(rabbitmq.amqp_port, to_server=spoil) as proxy:
        channel = connection(proxy.port).channel()
        channel.confirm_delivery()
        with pytest.raises(ConnectionClosedByBroker):
            channel.basic_publish("", queue, b"", BasicProperties(headers={"h": "abcd"}))
    with rabbitmq.pika() as channel:
        assert channel.queue_declare(queue, passive=True).method.message_count == 0
