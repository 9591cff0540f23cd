"""Requests of foreign clients, answered by `consume --reply` as a process: JMS over ActiveMQ, pika over RabbitMQ."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgpack
import pika
import pytest
from pika.spec import BasicProperties

from tests.support import maven
from tests.support.activemq import HOME, ActiveMQ
from tests.support.brokers import is_empty
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, LONG, Running
from tests.support.usual_pair import RpcClient, connection

SERVICE = """
import time

def slow(payload):
    time.sleep(1.1)
    return payload

def handle(payload):
    if payload == "fail":
        raise ValueError("no such customer")
    return payload
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start servers; each ends with the test, in good order."""
    service = tmp_path / "service.py"
    service.write_text(SERVICE)
    with ExitStack() as servers:

        def serve(url: str, queue: str, *options: str, function: str = "handle", **env: str) -> Running:
            server = Running(
                tmp_path / "servers",
                "consume", "--broker", url, "--queue", queue, "--dlq", f"{queue}.dead",
                "--model", f"{service}:{function}", "--reply", "-o", "json", *options,
                **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"), **env,
            )  # fmt: skip
            servers.callback(server.kill)
            server.wait_for("broker connected")
            return server

        yield serve


def ended(server: Running) -> dict[str, Any]:
    server.terminate()
    return server.finish()


def ask_by_jms(broker: ActiveMQ, queue: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Call a service by JMS, one call after the other; return the replies."""
    source = Path(__file__).parents[1] / "support" / "Ask.java"
    done = subprocess.run(
        ["java", "-cp", f"{HOME}/lib/*", str(source), broker.openwire_url, queue, "60000"],
        input="".join(json.dumps({"properties": {}, **call}) + "\n" for call in calls),
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def drained(broker: ActiveMQ, queue: str) -> list[tuple[dict[str, str], bytes]]:
    """Empty a queue; return what it held."""
    raw = RawStomp(broker.stomp_port)
    found = raw.drain(queue, is_empty=lambda: is_empty(broker, queue))
    raw.close()
    return found


@pytest.mark.activemq
def test_a_jms_client_calls_a_python_function(activemq: ActiveMQ, serve: Callable[..., Running]) -> None:
    queue = f"rpc.{uuid.uuid4().hex[:8]}"
    server = serve(activemq.url, queue)
    packed = {"content-type": "application/msgpack"}
    past = {"deadline": str(time.time() - 1)}
    answers = ask_by_jms(
        activemq,
        queue,
        [
            {"text": '{"a": "gr\u00fc\u00dfe"}', "correlation": "c-1"},
            {"text": "[1, 2]"},
            {"bytes": base64.b64encode(msgpack.packb({"raw": b"\x00\xff"})).decode(), "properties": packed},
            {"text": '"fail"', "correlation": "c-4"},
            {"text": "{broken", "correlation": "c-5"},
            {"text": "{}", "correlation": "c-6", "properties": past},
        ],
    )
    plain, array, raw, failed, broken, expired = answers
    assert (json.loads(plain["text"]), plain["correlation"]) == ({"a": "gr\u00fc\u00dfe"}, "c-1")
    assert plain["headers"]["status"] == "SUCCESS"
    # JMS clients without a correlation id of their own expect the id of the request.
    assert (json.loads(array["text"]), array["correlation"]) == ([1, 2], array["request"])
    assert msgpack.unpackb(base64.b64decode(raw["bytes"])) == {"raw": b"\x00\xff"}
    assert json.loads(failed["text"]).items() >= {"status": "FAILED", "error": "no such customer"}.items()
    assert (failed["headers"]["status"], failed["correlation"]) == ("FAILED", "c-4")
    assert json.loads(broken["text"]).items() >= {"stage": "decode", "error_type": "NotJson"}.items()
    assert json.loads(expired["text"])["status"] == "EXPIRED"
    summary = ended(server)
    counts = {name: summary[name] for name in ("succeeded", "dead_lettered", "replied", "expired", "replies_lost")}
    assert counts == {"succeeded": 3, "dead_lettered": 2, "replied": 6, "expired": 1, "replies_lost": 0}
    assert len(drained(activemq, f"/queue/{queue}.dead")) == 2


@pytest.mark.activemq
def test_replies_to_jms_clients_that_have_left_harm_nobody(activemq: ActiveMQ, serve: Callable[..., Running]) -> None:
    """Their temporary queues are gone; a reply to one must not end the server's connection."""
    queue = f"rpc.{uuid.uuid4().hex[:8]}"
    raw = RawStomp(activemq.stomp_port)
    gone = {"reply-to": "/remote-temp-queue/ID:nobody-1234-1:1:1", "correlation-id": "c"}
    raw.send(f"/queue/{queue}", [(gone, b"{}")] * 20)
    server = serve(activemq.url, queue)
    [answer] = ask_by_jms(activemq, queue, [{"text": "1", "correlation": "c-1"}])
    assert answer["text"] == "1"
    summary = ended(server)
    assert summary["succeeded"] == 21
    assert summary["dead_lettered"] == 0
    raw.close()
    assert drained(activemq, f"/queue/{queue}") == []
    assert (summary["replied"], summary["replies_lost"], summary["reconnects"]) == (1, 20, 0)


@pytest.mark.rabbitmq
@pytest.mark.parametrize(("protocol", "declare"), [("stomp", False), ("amqp", False), ("amqp", True)])
def test_the_usual_client_calls_ours(
    rabbitmq: RabbitMQ, serve: Callable[..., Running], protocol: str, declare: bool
) -> None:
    """Its queue is not durable, its reply queue is exclusive: neither is declared anew."""
    queue = f"rpc.{uuid.uuid4().hex[:8]}"
    with closing(connection(rabbitmq.amqp_port)) as declaring:
        channel = declaring.channel()
        channel.queue_declare(queue)
        if not declare:
            channel.queue_declare(f"{queue}.dead", durable=True)
        url = rabbitmq.url if protocol == "stomp" else rabbitmq.amqp_url
        server = serve(url, queue, "--codec", "msgpack", INFERTOOL_BROKER__DECLARE="true" if declare else "false")
        client = RpcClient(rabbitmq.amqp_port, queue, timeout_s=120)
        for args in ({"n": 1, "raw": b"\x00\xff"}, [1, 2.5, None], "text", 0):
            assert client.call(args) == args
        assert client.properties is not None
        assert client.properties.headers["status"] == "SUCCESS"
        assert client.properties.content_type == "application/msgpack"
        failed = client.call("fail")
        assert failed.items() >= {"status": "FAILED", "error": "no such customer", "stage": "infer"}.items()
        for number in range(100):
            assert client.call({"n": number}) == {"n": number}
        past = {"deadline": int(time.time()) - 5}
        assert client.call({}, headers=past)["status"] == "EXPIRED"
        client.close()
        if protocol == "amqp":
            # Over STOMP RabbitMQ drops in silence what goes to no queue.
            gone = BasicProperties(reply_to=client.callback_queue, correlation_id="gone")
            topic = BasicProperties(reply_to="amq.topic/a.b", correlation_id="topic")
            for properties in (gone, topic):
                channel.basic_publish("", queue, msgpack.packb({}), properties)
            server.wait_for("cannot be delivered", 2)
            assert direct(declaring, queue, [1, 2]) == [1, 2]
        assert client.callback_queue not in rabbitmq.admin.queues()
    summary = ended(server)
    results, lost = (107, 2) if protocol == "amqp" else (104, 0)
    assert (summary["succeeded"], summary["dead_lettered"], summary["expired"]) == (results, 1, 1)
    assert (summary["replied"], summary["replies_lost"]) == (results + 2 - lost, lost)


def direct(connected: pika.BlockingConnection, queue: str, args: Any) -> Any:
    """Call by RabbitMQ's direct reply-to, without a queue."""
    channel = connected.channel()
    came: list[bytes] = []
    channel.basic_consume("amq.rabbitmq.reply-to", lambda *delivery: came.append(delivery[3]), auto_ack=True)
    channel.basic_publish("", queue, msgpack.packb(args), BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    deadline = time.monotonic() + LONG
    while not came:
        assert time.monotonic() < deadline
        connected.process_data_events(0.1)
    return msgpack.unpackb(came[0])


@pytest.mark.rabbitmq
def test_a_slow_server_asks_whether_the_caller_is_still_there(
    rabbitmq: RabbitMQ, serve: Callable[..., Running]
) -> None:
    """Exclusive reply queues and direct reply addresses, before and after their callers have left."""
    queue = f"rpc.{uuid.uuid4().hex[:8]}"
    options = ("--codec", "msgpack", "--concurrency", "1")
    with closing(connection(rabbitmq.amqp_port)) as declaring:
        channel = declaring.channel()
        channel.queue_declare(queue)
        server = serve(rabbitmq.amqp_url, queue, *options, function="slow")
        client = RpcClient(rabbitmq.amqp_port, queue, timeout_s=120)
        assert [client.call(n) for n in range(2)] == [0, 1]
        assert direct(declaring, queue, 2) == 2
        client.close()
        gone = BasicProperties(reply_to=client.callback_queue, correlation_id="gone")
        for _ in range(5):
            channel.basic_publish("", queue, msgpack.packb({}), gone)
        assert direct(declaring, queue, 3) == 3
    summary = ended(server)
    # Now and then the thread that reads tries the model, and it asks nobody.
    assert summary["caller_gone"] >= 3
    assert summary["caller_gone"] + summary["replies_lost"] == 5
    assert summary["succeeded"] - summary["replies_lost"] == summary["replied"] == 4
    assert summary["dead_lettered"] == 0


JAVA = Path(__file__).parents[2] / "fixtures" / "rpc"


def run_java(*command: str) -> str:
    done = subprocess.run(["java", *command], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.activemq
def test_the_documented_caller_over_activemq(activemq: ActiveMQ, serve: Callable[..., Running]) -> None:
    queue = f"rpc.{uuid.uuid4().hex[:8]}"
    serve(activemq.url, queue, "--model", f"{JAVA / 'service.py'}:handle")
    caller = ("-cp", f"{HOME}/lib/*", str(JAVA / "CallOverActiveMQ.java"), activemq.openwire_url, "admin", "admin")
    assert run_java(*caller, queue, '{"numbers": [1, 2, 3]}') == 'SUCCESS {"sum":6}\n'
    assert run_java(*caller, queue, '{"numbers": 1}').startswith('FAILED {"status":"FAILED","error":"')


@pytest.mark.rabbitmq
def test_the_documented_caller_over_rabbitmq(rabbitmq: RabbitMQ, serve: Callable[..., Running]) -> None:
    queue = f"rpc.{uuid.uuid4().hex[:8]}"
    serve(rabbitmq.amqp_url, queue, "--model", f"{JAVA / 'service.py'}:handle", "--declare")
    uri = rabbitmq.amqp_url.replace("amqp://", "amqp://admin:admin@")
    caller = ("-cp", f"{maven.amqp_client()}/*", str(JAVA / "CallOverRabbitMQ.java"), uri)
    assert run_java(*caller, queue, '{"numbers": [1, 2, 3]}') == 'SUCCESS {"sum":6}\n'
    assert run_java(*caller, queue, '{"numbers": 1}').startswith('FAILED {"status":"FAILED","error":"')
