"""Requests of foreign clients, answered by `consume --reply` as a process: JMS over ActiveMQ, pika over RabbitMQ."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import msgpack
import pytest

from infertool.errors import RemoteFailureError
from infertool.rpc import Call, Client
from infertool.secret import Secret
from infertool.settings import BrokerSettings
from tests.support.activemq import HOME, ActiveMQ
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, Running
from tests.support.usual_pair import RpcClient, connection

SERVICE = """
import time

def handle(payload):
    if payload == "fail":
        raise ValueError("no such customer")
    return payload

def slow(payload):
    time.sleep(0.05)
    return payload
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start servers; each ends with the test, in good order."""
    service = tmp_path / "service.py"
    service.write_text(SERVICE)
    with ExitStack() as servers:

        def serve(url: str, queue: str, *options: str, function: str = "handle", wait: bool = True) -> Running:
            server = Running(
                tmp_path / "servers",
                "consume", "--broker", url, "--queue", queue, "--dlq", f"{queue}.dead",
                "--model", f"{service}:{function}", "--reply", "-o", "json", *options,
                **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
            )  # fmt: skip
            servers.callback(server.kill)
            if wait:
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
    raw_stomp = RawStomp(activemq.stomp_port)
    assert len(raw_stomp.drain(f"/queue/{queue}.dead")) == 2
    raw_stomp.close()


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
    assert raw.drain(f"/queue/{queue}") == []
    raw.close()
    assert (summary["replied"], summary["replies_lost"], summary["reconnects"]) == (1, 20, 0)


@pytest.mark.rabbitmq
def test_the_usual_client_calls_ours(rabbitmq: RabbitMQ, serve: Callable[..., Running]) -> None:
    queue = f"rpc.{uuid.uuid4().hex[:8]}"
    declaring = connection(rabbitmq.amqp_port)
    declaring.channel().queue_declare(queue)
    server = serve(rabbitmq.url, queue, "--codec", "msgpack")
    client = RpcClient(rabbitmq.amqp_port, queue, timeout_s=120)
    for args in ({"n": 1, "raw": b"\x00\xff"}, [1, 2.5, None], "text", 0):
        assert client.call(args) == args
    assert client.properties is not None
    assert client.properties.headers["status"] == "SUCCESS"
    assert client.properties.content_type == "application/msgpack"
    assert client.call("fail").items() >= {"status": "FAILED", "error": "no such customer", "stage": "infer"}.items()
    for number in range(100):
        assert client.call({"n": number}) == {"n": number}
    client.close()
    declaring.close()
    summary = ended(server)
    assert (summary["succeeded"], summary["dead_lettered"], summary["replied"]) == (104, 1, 105)


class Killed:
    """Three servers. Each second one that works is killed, and another starts in its place; one works at any time."""

    def __init__(self, start: Callable[[], Running]) -> None:
        self._start = start
        self._servers = [start() for _ in range(3)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            working = [each for each in self._servers if "broker connected" in each.log.read_text()]
            if len(working) > 1:
                working[0].kill()
                self._servers.remove(working[0])
                self._servers.append(self._start())
                self.kills += 1


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("activemq", "rabbitmq")]
)
def test_every_caller_gets_its_own_answer_while_servers_are_killed(
    name: str, request: pytest.FixtureRequest, serve: Callable[..., Running]
) -> None:
    broker = request.getfixturevalue(name)
    queue = f"rpc.{uuid.uuid4().hex[:8]}"
    settings = BrokerSettings(url=broker.url, user="admin", password=Secret("admin"))
    room = threading.Semaphore(30)

    def start() -> Running:
        return serve(broker.url, queue, "--concurrency", "2", function="slow", wait=False)

    with Client(settings) as client, Killed(start) as servers:
        calls = []
        for number in range(1000):
            room.acquire()
            call = client.call_nowait(queue, {"n": number}, timeout_s=240)
            call.add_done_callback(lambda _: room.release())
            calls.append(call)
        ends = [_end(call) for call in calls]
    # A request that was in progress at two kills is taken for their cause, and its caller is told.
    assert [end for number, end in enumerate(ends) if end not in ({"n": number}, "crash")] == []
    assert servers.kills > 1
    assert client.under_way == 0


def _end(call: Call) -> object:
    try:
        return call.result().value
    except RemoteFailureError as error:
        return error.stage
