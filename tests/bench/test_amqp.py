"""RabbitMQ over AMQP against the shortest programs on pika, all in turn in one run."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator

import pytest
from pika import spec
from pika.adapters.blocking_connection import BlockingChannel
from pytest_benchmark.fixture import BenchmarkFixture

from infertool import brokers
from infertool.brokers.port import Broker, DeliversOnReader, Move
from infertool.message import Message, Outgoing
from tests.bench.harness.fixtures import FillQueue, Row
from tests.bench.harness.reference import REFERENCE
from tests.support.brokers import settings, take
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq

EVENTS = 10_000
LETTERS = 2_000
BATCH = 100
ROUNDS = 3
QUEUE, DEAD = "bench.amqp", "bench.amqp.dead"


@pytest.fixture(params=["classic", "quorum"])
def filled(rabbitmq: RabbitMQ, request: pytest.FixtureRequest) -> Iterator[FillQueue]:
    """Return what fills the queue, which others leave empty."""
    with rabbitmq.pika() as channel:
        for queue in (QUEUE, DEAD):
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": request.param})
    broker = brokers.open(settings(rabbitmq.amqp_url))
    broker.connect()
    sender, body = broker.bulk_sender(Outgoing(QUEUE, b""), []), REFERENCE.read_bytes()

    def fill(count: int) -> None:
        for _ in range(count // BATCH):
            assert sender.wait_for_room(60)
            sender.send([((), body)] * BATCH)
        assert sender.flush(60)

    yield fill
    broker.close(5)
    with rabbitmq.pika() as channel:
        for queue in (QUEUE, DEAD):
            channel.queue_delete(queue)


def pika_consumes(server: RabbitMQ) -> float:
    """Return events a second of a loop that acks each."""
    with server.pika() as channel:
        channel.basic_qos(prefetch_count=200)
        left = EVENTS
        began = time.perf_counter()

        def on_message(
            channel: BlockingChannel, method: spec.Basic.Deliver, _properties: object, _body: object
        ) -> None:
            nonlocal left
            channel.basic_ack(method.delivery_tag)
            left -= 1
            if not left:
                channel.stop_consuming()

        channel.basic_consume(QUEUE, on_message)
        channel.start_consuming()
        return EVENTS / (time.perf_counter() - began)


def pika_moves(server: RabbitMQ) -> float:
    """Return letters a second of a loop that publishes with a confirmation and acks."""
    with server.pika() as channel:
        channel.confirm_delivery()
        channel.basic_qos(prefetch_count=BATCH)
        began = time.perf_counter()
        for number, (method, properties, body) in enumerate(channel.consume(QUEUE), 1):
            channel.basic_publish("", DEAD, body, properties, mandatory=True)
            channel.basic_ack(method.delivery_tag)
            if number == LETTERS:
                break
        rate = LETTERS / (time.perf_counter() - began)
        channel.cancel()
        channel.queue_purge(DEAD)
        return rate


def ours_consumes(broker: Broker) -> float:
    done, count = threading.Event(), 0
    began = time.perf_counter()
    subscription = broker.subscribe(QUEUE, window=200)
    assert isinstance(subscription, DeliversOnReader)

    def on_messages(messages: list[Message]) -> None:
        nonlocal count
        subscription.ack(messages)
        count += len(messages)
        if count == EVENTS:
            done.set()

    if early := subscription.deliver_to(on_messages):
        on_messages(early)
    assert done.wait(120)
    return EVENTS / (time.perf_counter() - began)


def ours_moves(broker: Broker) -> float:
    began = time.perf_counter()
    subscription = broker.subscribe(QUEUE, window=2 * BATCH)
    for _ in range(LETTERS // BATCH):
        messages = take(subscription, BATCH)
        subscription.move([Move(each, Outgoing(DEAD, each.body, each.kind)) for each in messages], 60)
    return LETTERS / (time.perf_counter() - began)


def test_consume_and_ack(
    benchmark: BenchmarkFixture, rabbitmq: RabbitMQ, filled: FillQueue, row: Row, request: pytest.FixtureRequest
) -> None:
    ratios = []

    def pair() -> None:
        filled(EVENTS)
        bare = pika_consumes(rabbitmq)
        filled(EVENTS)
        made = brokers.open(settings(rabbitmq.amqp_url))
        made.connect()
        ratios.append(ours_consumes(made) / bare)
        made.close(5)

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios[1:])
    row(f"AMQP: consume and ack, prefetch 200, against pika ({request.node.name})", f"{ratio:.2f}x", "at least 1.2x")
    assert ratio >= 1.2


def test_moves(
    benchmark: BenchmarkFixture, rabbitmq: RabbitMQ, filled: FillQueue, row: Row, request: pytest.FixtureRequest
) -> None:
    ratios = []

    def pair() -> None:
        filled(LETTERS)
        bare = pika_moves(rabbitmq)
        filled(LETTERS)
        made = brokers.open(settings(rabbitmq.amqp_url))
        made.connect()
        ratios.append(ours_moves(made) / bare)
        made.close(5)
        with rabbitmq.pika() as channel:
            channel.queue_purge(DEAD)

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios[1:])
    row(f"AMQP: moves of 100 against pika with confirms ({request.node.name})", f"{ratio:.2f}x", "at least 0.8x")
    assert ratio >= 0.8
