"""Replies over RabbitMQ when the broker, a queue or the callers do not play along: `consume --reply` as a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgpack
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import BasicProperties

from infertool.errors import CallTimeoutError, ReceiptTimeoutError, RefusedError, RemoteFailureError
from infertool.message import Outgoing
from infertool.rpc import Call, Client
from tests.support.brokers import TIMEOUT_S, settings
from tests.support.rabbitmq import RabbitMQ
from tests.support.running import LONG, Running
from tests.support.usual_pair import RpcClient, connection

pytestmark = pytest.mark.rabbitmq

QUEUE = "requests"
SERVICE = """
import os
import time

def handle(payload):
    if isinstance(payload, dict):
        time.sleep(payload.get("seconds", 0))
        while not os.path.exists(payload.get("until", "/")):
            time.sleep(0.05)
    return payload
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ.of_a_test(tmp_path_factory.mktemp("own"), "classic") as server:
        yield server


@pytest.fixture
def channel(broker: RabbitMQ) -> Iterator[BlockingChannel]:
    """A channel of pika's, and empty queues for requests and dead letters."""
    with closing(connection(broker.amqp_port)) as connected:
        channel = connected.channel()
        for queue in (QUEUE, f"{QUEUE}.dead"):
            channel.queue_delete(queue)
            channel.queue_declare(queue, durable=True)
        yield channel


Serve = Callable[..., Running]


@pytest.fixture
def serve(broker: RabbitMQ, channel: BlockingChannel, tmp_path: Path) -> Iterator[Serve]:
    """Start a server; it ends with the test."""
    servers: list[Running] = []
    (tmp_path / "service.py").write_text(SERVICE)

    def serve(*options: str, user: str = "admin", password: str = "admin", **env: str) -> Running:
        server = Running(
            tmp_path / "servers", "consume", "--broker", broker.amqp_url, "--queue", QUEUE, "--dlq", f"{QUEUE}.dead",
            "--model", f"{tmp_path}/service.py:handle", "--reply", "--codec", "msgpack", "-o", "json", *options,
            ACTIVEMQ_USER=user, ACTIVEMQ_PASSWORD=password, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
            INFERTOOL_BROKER__RECEIPT_TIMEOUT_S="200", **env,
        )  # fmt: skip
        servers.append(server)
        server.wait_for("broker connected")
        return server

    yield serve
    for server in servers:
        server.kill()


def ended(server: Running) -> dict[str, Any]:
    server.terminate()
    return server.finish()


def ask(channel: BlockingChannel, numbers: range, reply_to: str, **properties: Any) -> None:
    for number in numbers:
        asked = BasicProperties(reply_to=reply_to, correlation_id=f"c{number}", **properties)
        channel.basic_publish("", QUEUE, msgpack.packb({"n": number}), asked)


def depth(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def replies(channel: BlockingChannel, queue: str) -> list[tuple[str, Any]]:
    """Take what is in a reply queue: correlation ids and values."""
    found = []
    while (got := channel.basic_get(queue, auto_ack=True))[0]:
        _, properties, body = got
        found.append((properties.correlation_id, msgpack.unpackb(body)))
    return found


def test_replies_wait_for_the_end_of_a_memory_alarm(
    broker: RabbitMQ, channel: BlockingChannel, serve: Serve, tmp_path: Path
) -> None:
    """Publishing is stopped, consuming is not: requests stay unacked until their replies are taken."""
    answers = channel.queue_declare("", exclusive=True).method.queue
    server = serve()
    ask(channel, range(10), answers)
    wait_until(lambda: depth(channel, answers) == 10)
    go = tmp_path / "go"
    for number in range(10, 15):
        asked = BasicProperties(reply_to=answers, correlation_id=f"c{number}")
        channel.basic_publish("", QUEUE, msgpack.packb({"until": str(go)}), asked)
    wait_until(lambda: depth(channel, QUEUE) == 0)
    try:
        broker.admin.take_no_messages()
        go.touch()
        server.wait_for("takes no messages now")
        assert broker.admin.unacked(QUEUE) == 5
    finally:
        broker.admin.take_messages()
    server.wait_for("takes messages again")
    wait_until(lambda: depth(channel, answers) == 15)
    wait_until(lambda: depth(channel, QUEUE) == 0)
    assert sorted(correlation for correlation, _ in replies(channel, answers)) == sorted(f"c{n}" for n in range(15))
    summary = ended(server)
    assert (summary["succeeded"], summary["replied"], summary["dead_lettered"]) == (15, 15, 0)
    assert summary["replies_lost"] == 0


def test_calls_wait_for_the_end_of_a_memory_alarm_until_their_deadlines(
    broker: RabbitMQ, channel: BlockingChannel, serve: Serve
) -> None:
    serve()
    ends: SimpleQueue[Exception | None] = SimpleQueue()
    with Client(settings(broker.amqp_url, receipt_timeout_s=1.0)) as client:
        assert client.call(QUEUE, 1, timeout_s=LONG, codec="msgpack").value == 1
        try:
            broker.admin.take_no_messages()
            # It is on the line, and tells us of the alarm; later calls wait for room.
            first = client.start(Outgoing(QUEUE, b"2"), timeout_s=LONG, on_sent=ends.put)
            assert isinstance(ends.get(timeout=LONG), ReceiptTimeoutError)
            with pytest.raises(CallTimeoutError):
                client.call(QUEUE, 3, timeout_s=0.5, codec="msgpack")
            waiting: list[Call] = []
            caller = threading.Thread(
                target=lambda: waiting.append(client.call_nowait(QUEUE, 4, timeout_s=LONG, codec="msgpack"))
            )
            caller.start()
        finally:
            broker.admin.take_messages()
        caller.join(LONG)
        assert waiting[0].result().value == 4
        # The receipt was late, and the request was not lost.
        assert first.result().body == b"2"


def test_a_full_reply_queue_costs_its_replies_and_nothing_else(channel: BlockingChannel, serve: Serve) -> None:
    full = channel.queue_declare(
        "", exclusive=True, arguments={"x-max-length": 3, "x-overflow": "reject-publish"}
    ).method.queue
    server = serve()
    ask(channel, range(20), full)
    other = channel.queue_declare("", exclusive=True).method.queue
    ask(channel, range(20, 25), other)
    wait_until(lambda: depth(channel, other) == 5)
    server.wait_for("cannot be delivered")
    wait_until(lambda: depth(channel, QUEUE) == 0)
    summary = ended(server)
    # RabbitMQ looks at the length before it takes a batch of messages: a few more may fit.
    taken = len(replies(channel, full))
    assert 3 <= taken < 20
    assert (summary["succeeded"], summary["dead_lettered"]) == (25, 0)
    assert (summary["replied"], summary["replies_lost"]) == (taken + 5, 20 - taken)
    assert "reject-publish" in server.log.read_text()


def test_what_max_length_drops_is_answered_by_a_timeout_only(
    broker: RabbitMQ, channel: BlockingChannel, serve: Serve
) -> None:
    """RabbitMQ confirms what it drops at once: a request, or a reply."""
    short = channel.queue_declare("", exclusive=True, arguments={"x-max-length": 3}).method.queue
    channel.queue_delete(QUEUE)
    channel.queue_declare(QUEUE, durable=True, arguments={"x-max-length": 5})
    with Client(settings(broker.amqp_url)) as client:
        waits_s = [5.0] * 7 + [LONG] * 5
        calls = [client.call_nowait(QUEUE, {"n": n}, timeout_s=s, codec="msgpack") for n, s in enumerate(waits_s)]
        wait_until(lambda: depth(channel, QUEUE) == 5)
        server = serve()
        # The oldest are dropped.
        assert [call.result().value for call in calls[7:]] == [{"n": n} for n in range(7, 12)]
        for call in calls[:7]:
            with pytest.raises(CallTimeoutError):
                call.result()
        assert client.under_way == 0
    # One at a time, since the queue of requests is short, too.
    for number in range(20):
        ask(channel, range(number, number + 1), short)
        wait_until(lambda: depth(channel, QUEUE) == 0)
    wait_until(lambda: depth(channel, short) == 3)
    summary = ended(server)
    assert (summary["succeeded"], summary["replied"], summary["replies_lost"]) == (25, 25, 0)
    assert [correlation for correlation, _ in replies(channel, short)] == ["c17", "c18", "c19"]


def test_a_full_queue_of_requests_refuses_the_call(broker: RabbitMQ, channel: BlockingChannel) -> None:
    channel.queue_delete(QUEUE)
    channel.queue_declare(QUEUE, durable=True, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    with Client(settings(broker.amqp_url)) as client:
        waiting = [client.call_nowait(QUEUE, n, timeout_s=LONG, codec="msgpack") for n in range(2)]
        wait_until(lambda: depth(channel, QUEUE) == 2)
        with pytest.raises(RefusedError, match="queue is full"):
            client.call(QUEUE, 3, timeout_s=LONG, codec="msgpack")
        assert not any(call.done() for call in waiting)
        for call in waiting:
            call.cancel()


def test_a_queue_of_requests_that_is_deleted_and_made_again(
    broker: RabbitMQ, channel: BlockingChannel, serve: Serve
) -> None:
    server = serve()
    client = RpcClient(broker.amqp_port, QUEUE, timeout_s=TIMEOUT_S)
    assert client.call({"n": 1}) == {"n": 1}
    channel.queue_delete(QUEUE)
    server.wait_for("was deleted")
    channel.queue_declare(QUEUE, durable=True)
    assert client.call({"n": 2}) == {"n": 2}
    client.close()
    summary = ended(server)
    assert (summary["succeeded"], summary["replied"], summary["reconnects"]) == (2, 2, 0)


def test_a_consumer_timeout_gives_one_reply(broker: RabbitMQ, channel: BlockingChannel, serve: Serve) -> None:
    """RabbitMQ closes the channel of a model that takes too long, and delivers again what it works on."""
    broker.admin.set(consumer_timeout=500, channel_tick_interval=500)
    try:
        server = serve()
        answers = channel.queue_declare("", exclusive=True).method.queue
        asked = BasicProperties(reply_to=answers, correlation_id="slow")
        channel.basic_publish("", QUEUE, msgpack.packb({"seconds": 4}), asked)
        server.wait_for("consumer_timeout")
        wait_until(lambda: depth(channel, answers) == 1)
    finally:
        broker.admin.set(consumer_timeout=1_800_000, channel_tick_interval=60_000)
    wait_until(lambda: depth(channel, QUEUE) == 0)
    summary = ended(server)
    assert replies(channel, answers) == [("slow", {"seconds": 4})]
    assert (summary["succeeded"], summary["replied"], summary["dead_lettered"]) == (1, 1, 0)
    assert summary["recognised"] >= 1


def test_50_megabytes_are_refused_by_the_server_and_come_back_where_it_takes_them(
    broker: RabbitMQ, channel: BlockingChannel, serve: Serve
) -> None:
    broker.admin.take_messages()
    large = bytes(range(256)) * 200_000
    strict = serve()
    with Client(settings(broker.amqp_url, receipt_timeout_s=LONG)) as client:
        with pytest.raises(RemoteFailureError, match="max_body_bytes") as caught:
            client.call(QUEUE, large, timeout_s=LONG, codec="msgpack")
        assert (caught.value.stage, caught.value.error_type) == ("decode", "TooLarge")
        wait_until(lambda: depth(channel, f"{QUEUE}.dead") == 1)
        summary = ended(strict)
        assert (summary["dead_lettered"], summary["replied"]) == (1, 1)
        serve(INFERTOOL_CONSUME__MAX_BODY_BYTES="100000000")
        assert client.call(QUEUE, large, timeout_s=LONG, codec="msgpack").value == large


@pytest.mark.long
def test_a_server_that_may_write_nowhere(broker: RabbitMQ, channel: BlockingChannel, serve: Serve) -> None:
    """RabbitMQ closes the channel over each reply; the requests are settled, and no dead letters."""
    broker.admin.add_user("reader", "reader-secret", ("^$", "^$", ".*"))
    answers = channel.queue_declare("", exclusive=True).method.queue
    server = serve(user="reader", password="reader-secret")
    for number in range(3):
        ask(channel, range(number, number + 1), answers)
        server.wait_for("cannot be delivered", number + 1)
        wait_until(lambda: depth(channel, QUEUE) == 0)
    broker.admin.clear_rights("reader")
    assert depth(channel, answers) == 0
    summary = ended(server)
    assert (summary["replies_lost"], summary["replied"], summary["dead_lettered"]) == (3, 0, 0)
    assert "reader-secret" not in server.log.read_text()


@pytest.mark.long
def test_a_call_of_half_a_minute_keeps_its_connection(broker: RabbitMQ, channel: BlockingChannel, serve: Serve) -> None:
    """The broker would end a connection that is silent for two of its heartbeats, of 5 s."""
    answers = channel.queue_declare("", exclusive=True).method.queue
    server = serve(INFERTOOL_BROKER__HEARTBEAT_S="5", INFERTOOL_CONSUME__TIMEOUT_S="200")
    asked = BasicProperties(reply_to=answers, correlation_id="slow")
    channel.basic_publish("", QUEUE, msgpack.packb({"seconds": 30}), asked)
    began = time.monotonic()
    # So that this connection lives as well.
    wait_until(lambda: depth(channel, answers) == 1)
    assert time.monotonic() - began >= 30
    wait_until(lambda: broker.admin.unacked(QUEUE) == 0)
    summary = ended(server)
    assert (summary["succeeded"], summary["redelivered"], summary["reconnects"]) == (1, 0, 0)


@pytest.mark.long
def test_ten_thousand_replies_that_nobody_waits_for(broker: RabbitMQ, channel: BlockingChannel, serve: Serve) -> None:
    """Callers that left, and one that stays and takes nothing: neither the server nor the broker keeps anything."""
    gone = RpcClient(broker.amqp_port, QUEUE)
    gone.close()
    deaf = channel.queue_declare("", exclusive=True).method.queue
    server = serve()
    ask(channel, range(5_000), gone.callback_queue)
    ask(channel, range(5_000), deaf)
    wait_until(lambda: depth(channel, deaf) == 5_000)
    with Client(settings(broker.amqp_url)) as client:
        assert client.call(QUEUE, "still there", timeout_s=LONG, codec="msgpack").value == "still there"
    summary = ended(server)
    assert (summary["succeeded"], summary["dead_lettered"]) == (10_001, 0)
    assert (summary["replied"], summary["replies_lost"]) == (5_001, 5_000)
    assert server.log.read_text().count("cannot be delivered") < 50
    channel.queue_delete(deaf)
    assert [name for name in broker.admin.queues() if name.startswith("amq.")] == []
