"""What RabbitMQ refuses comes as one line that says what to do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from queue import SimpleQueue

import pytest

from infertool.brokers.port import Broker, Move
from infertool.errors import (
    MoveRefusedError,
    OccupiedError,
    RefusedError,
    StaleMessagesError,
    UnreachableError,
    UnroutableError,
)
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from infertool.secret import Secret
from tests.brokers.amqp.conftest import Declare
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all, stale_acks, take
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq


def told(broker: Broker, outgoing: Outgoing) -> Exception | None:
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    broker.send(outgoing, answers.put)
    return answers.get(timeout=TIMEOUT_S)


def test_a_wrong_virtual_host(rabbitmq: RabbitMQ, connect: Connect) -> None:
    with pytest.raises(RefusedError, match=r"virtual host prod.*vhost prod not found") as caught:
        connect(f"{rabbitmq.amqp_url}/prod")
    assert "broker.url" in caught.value.advice


def test_another_virtual_host(rabbitmq: RabbitMQ, connect: Connect) -> None:
    with rabbitmq.admin.virtual_host("a/b"):
        broker = connect(f"{rabbitmq.amqp_url}/a%2Fb", declare=True, queue_type="classic")
        send_all(broker, numbered("there", 1))
        assert len(take(broker.subscribe("there", window=1), 1)) == 1
        with pytest.raises(UnroutableError):
            connect(rabbitmq.amqp_url).subscribe("there", window=1)
        broker.close(TIMEOUT_S)


def test_a_login_without_permissions(rabbitmq: RabbitMQ, connect: Connect, declare: Declare) -> None:
    queue = declare()
    rabbitmq.admin.add_user("may-only-read", "secret-of-reader", ("^$", "^$", ".*"))
    login = {"user": "may-only-read", "password": Secret("secret-of-reader")}
    broker = connect(rabbitmq.amqp_url, **login)
    broker.subscribe(queue, window=1)
    error = told(broker, Outgoing(queue, b""))
    assert isinstance(error, RefusedError)
    assert "ACCESS_REFUSED" in error.reason
    assert "permission" in error.advice
    rabbitmq.admin.clear_rights("may-only-read")
    with pytest.raises(RefusedError, match="virtual host /") as caught:
        connect(rabbitmq.amqp_url, **login)
    assert "secret-of-reader" not in str(caught.value)


def test_a_missing_queue(rabbitmq: RabbitMQ, connect: Connect, links: Links) -> None:
    broker = connect(rabbitmq.amqp_url, links)
    with pytest.raises(UnroutableError) as caught:
        broker.subscribe("not.there", window=1)
    assert str(caught.value).startswith(f"there is no queue not.there in the virtual host / of {rabbitmq.amqp_url};")
    assert "--declare" in caught.value.advice
    assert isinstance(told(broker, Outgoing("not.there", b"")), UnroutableError)
    assert links.of(ConnectionState.LOST) == []


def test_of_several_sends_only_what_is_refused_has_an_error(
    rabbitmq: RabbitMQ, connect: Connect, links: Links, declare: Declare
) -> None:
    queue: str = declare()
    ends: SimpleQueue[Sequence[tuple[str, Exception | None]]] = SimpleQueue()
    broker = connect(rabbitmq.amqp_url, links)
    good = numbered(queue, 40)
    broker.send_all(
        [
            *((message, "sent") for message in good[:20]),
            (Outgoing(queue, b"", headers={"h": "x" * 140_000}), "long"),
            (Outgoing("not.there", b""), "missing"),
            (Outgoing("n" * 300, b""), "no name"),
            *((message, "sent") for message in good[20:]),
        ],
        ends.put,
    )
    told: list[tuple[str, Exception | None]] = []
    while len(told) < 43:
        told += ends.get(timeout=TIMEOUT_S)
    assert [error for token, error in told if token == "sent"] == [None] * 40
    errors = {token: type(error) for token, error in told if error}
    assert errors == {"long": RefusedError, "missing": UnroutableError, "no name": RefusedError}
    assert [message.body for message in take(broker.subscribe(queue, window=100), 40)] == [each.body for each in good]
    assert links.of(ConnectionState.LOST) == []


def test_a_missing_queue_is_declared_if_asked_for_and_what_exists_stays(
    rabbitmq: RabbitMQ, connect: Connect, declare: Declare
) -> None:
    there = declare(x_max_priority=5)
    names = [f"{there}.q", f"{there}.dlq"]
    broker = connect(rabbitmq.amqp_url, declare=True, queue_type="quorum")
    send_all(broker, numbered(there, 1))
    subscription = broker.subscribe(names[0], window=1)
    send_all(broker, numbered(names[0], 1))
    [message] = take(subscription, 1)
    subscription.move([Move(message, Outgoing(names[1], b""))], TIMEOUT_S)
    types = rabbitmq.admin.queues()
    assert [types[name] for name in (there, *names)] == ["classic", "quorum", "quorum"]
    with rabbitmq.pika() as channel:
        for name in names:
            channel.queue_delete(name)


def test_a_full_queue(rabbitmq: RabbitMQ, connect: Connect, declare: Declare, links: Links) -> None:
    full, queue = declare(x_max_length=1, x_overflow="reject-publish"), declare()
    broker = connect(rabbitmq.amqp_url, links)
    send_all(broker, numbered(full, 1))
    error = told(broker, Outgoing(full, b"2"))
    assert isinstance(error, RefusedError)
    assert not isinstance(error, UnroutableError)
    assert "full" in error.reason
    send_all(broker, numbered(queue, 3))
    subscription = broker.subscribe(queue, window=3)
    messages = take(subscription, 3)
    with pytest.raises(MoveRefusedError, match="full"):
        subscription.move([Move(message, Outgoing(full, b"3")) for message in messages], TIMEOUT_S)
    again = take(subscription, 3)
    assert sorted(message.body for message in again) == sorted(message.body for message in messages)
    assert all(message.redelivered for message in again)
    with pytest.raises(StaleMessagesError):
        subscription.move([Move(messages[0], None)], TIMEOUT_S)
    subscription.ack(messages)
    assert stale_acks(subscription) == 3
    subscription.ack(again)
    assert links.of(ConnectionState.LOST) == []
    sender = broker.bulk_sender(Outgoing(full, b""), [])
    sender.send([((), b"4"), ((), b"5")])
    assert sender.flush(TIMEOUT_S)
    assert (sender.refused, "full" in sender.reason) == (2, True)


def test_a_queue_of_another_connection_alone(rabbitmq: RabbitMQ, connect: Connect) -> None:
    first, second = connect(rabbitmq.amqp_url), connect(rabbitmq.amqp_url)
    first.subscribe("somebodys.lock", window=1, exclusive=True)
    with pytest.raises(OccupiedError):
        second.subscribe("somebodys.lock", window=1, exclusive=True)
    first.close(TIMEOUT_S)
    second.subscribe("somebodys.lock", window=1, exclusive=True)


def serve(answer: bytes) -> socket.socket:
    """Return the socket of a server that gives this answer to the first bytes of each client, until it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.settimeout(5)
                    client.recv(64)
                    client.sendall(answer)

    threading.Thread(target=run, daemon=True).start()
    return listener


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP server"),
        (b"AMQP\x00\x01\x00\x00", "another version"),
        (b"hello there, this is no AMQP", "not an AMQP broker: it sent"),
        (b"\x01\x00\x00\x00\x00\x00\x04\x00\xff\x00\xff\xce", "not an AMQP broker: it sent"),
        (b"", "ended the handshake"),
    ],
)
def test_what_is_no_broker(connect: Connect, answer: bytes, words: str) -> None:
    with serve(answer) as listener, pytest.raises(UnreachableError, match=words):
        connect(f"amqp://127.0.0.1:{listener.getsockname()[1]}", connect_timeout_s=10)


def test_the_stomp_port(rabbitmq: RabbitMQ, connect: Connect) -> None:
    with pytest.raises(UnreachableError, match="a STOMP port") as caught:
        connect(f"amqp://127.0.0.1:{rabbitmq.stomp_port}", connect_timeout_s=10)
    assert "stomp://" in caught.value.advice
