"""Messages that are larger than RabbitMQ takes: it closes the channel, on which other messages are under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import pytest

from infertool.brokers.port import Broker
from infertool.errors import ConnectionLostError, InfertoolError, RefusedError
from infertool.message import BodyKind, Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all
from tests.support.rabbitmq import MOST, RabbitMQ, SmallRabbitMQ

pytestmark = pytest.mark.rabbitmq

QUEUE = "q"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with SmallRabbitMQ.of_a_test(tmp_path_factory.mktemp("small"), "classic", QUEUE) as server:
        yield server


def of_size(size: int) -> Outgoing:
    return Outgoing(QUEUE, b"x" * size, BodyKind.BYTES)


def sends_again(broker: Broker) -> None:
    """Wait until the broker is connected anew and takes messages."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            send_all(broker, numbered(QUEUE, 1))
        except InfertoolError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def test_of_several_sends_only_the_large_ones_are_refused(small: RabbitMQ, connect: Connect, links: Links) -> None:
    ends: SimpleQueue[Sequence[tuple[str, Exception | None]]] = SimpleQueue()
    broker = connect(small.amqp_url, links)

    def send() -> dict[str, list[Exception | None]]:
        sizes = [10] * 20 + [MOST + 1] + [MOST] * 20 + [3 * MOST] + [10] * 20
        broker.send_all([(of_size(size), "large" if size > MOST else "small") for size in sizes], ends.put)
        told: list[tuple[str, Exception | None]] = []
        while len(told) < len(sizes):
            told += ends.get(timeout=TIMEOUT_S)
        return {name: [error for token, error in told if token == name] for name in ("small", "large")}

    told = send()
    assert {type(error) for error in told["large"]} == {RefusedError}
    assert all(error is None or type(error) is ConnectionLostError for error in told["small"])
    refused = told["large"][0]
    assert isinstance(refused, RefusedError)
    assert str(MOST) in refused.reason
    assert "max_message_size" in refused.advice
    assert "declared" not in refused.advice
    sends_again(broker)
    # The limit is known: what is above it does not reach the broker.
    told = send()
    assert {type(error) for error in told["large"]} == {RefusedError}
    assert told["small"] == [None] * 60
    assert len(links.of(ConnectionState.LOST)) == 1


def test_sends_behind_the_end_of_the_channel_are_told_of_it(small: RabbitMQ, connect: Connect) -> None:
    """They are on the way when the connection has not ended yet."""
    broker = connect(small.amqp_url)
    told: SimpleQueue[Exception | None] = SimpleQueue()
    closed, sent = threading.Event(), threading.Event()

    def on_refused(error: Exception | None) -> None:
        # The reader's thread, before it ends the connection.
        closed.set()
        assert sent.wait(TIMEOUT_S)
        told.put(error)

    broker.send(of_size(MOST + 1), on_refused)
    assert closed.wait(TIMEOUT_S)
    try:
        for _ in range(3):
            try:
                broker.send(of_size(1), told.put)
            except ConnectionLostError as error:
                told.put(error)
    finally:
        sent.set()
    errors = [told.get(timeout=TIMEOUT_S) for _ in range(4)]
    assert sorted(type(error).__name__ for error in errors) == ["ConnectionLostError"] * 3 + ["RefusedError"]
    sends_again(broker)
