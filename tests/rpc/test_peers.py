"""Peers that nobody here wrote: our client and foreign servers, our server and foreign clients, as processes."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.rpc.conftest import Connect, Place
from tests.support import maven
from tests.support.activemq import HOME
from tests.support.brokers import TIMEOUT_S, new_queue
from tests.support.running import CREDENTIALS, Running
from tests.support.usual_pair import usual_server

LONG = TIMEOUT_S
SUPPORT = Path(__file__).parents[1] / "support"


@contextmanager
def serving(*command: str) -> Iterator[None]:
    """Run a Java server while the block runs."""
    process = subprocess.Popen(
        ["java", "-XX:TieredStopAtLevel=1", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdin
    try:
        said = process.stdout.readline()
        assert said == "serving\n", process.communicate(timeout=60)
        yield
        process.stdin.write("\n")
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
@pytest.mark.activemq
def test_a_jms_server_answers_our_client(activemq: Any, connect: Connect) -> None:
    queue, client = new_queue(), connect(activemq.url)
    answer = (str(SUPPORT / "Answer.java"), activemq.openwire_url, queue.removeprefix("/queue/"))
    with serving("-cp", f"{HOME}/lib/*", *answer):
        calls = [client.call_nowait(queue, {"n": n, "text": "grüße"}, timeout_s=LONG) for n in range(100)]
        assert [call.result().value for call in calls] == [{"N": n, "TEXT": "GRÜSSE"} for n in range(100)]
        value = {"raw": b"\0\xff", "list": [1, 2.5, None]}
        assert client.call(queue, value, timeout_s=LONG, codec="msgpack").value == value
    assert client.counts.answered == 101


def rabbit_peer(server: Any, mode: str, queue: str, *more: str) -> list[str]:
    jars = maven.amqp_client()
    return [
        "-cp",
        f"{jars}/*",
        str(SUPPORT / "RabbitPeer.java"),
        str(server.amqp_port),
        mode,
        queue,
        *more,
    ]


@pytest.mark.long
@pytest.mark.rabbitmq
@pytest.mark.parametrize("url", ["url", "amqp_url"])
def test_rabbitmqs_java_server_answers_our_client(rabbitmq: Any, url: str, connect: Connect) -> None:
    queue, client = new_queue().removeprefix("/queue/"), connect(getattr(rabbitmq, url))
    with serving(*rabbit_peer(rabbitmq, "serve", queue, "true")):
        calls = [client.call_nowait(queue, {"n": n, "text": "grüße"}, timeout_s=LONG) for n in range(100)]
        assert [call.result().value for call in calls] == [{"n": n, "text": "grüße"} for n in range(100)]
        value = {"raw": b"\0\xff", "list": [1, 2.5, None]}
        reply = client.call(queue, value, timeout_s=LONG, codec="msgpack")
        assert (reply.value, reply.properties.content_type) == (value, "application/msgpack")


@pytest.mark.long
@pytest.mark.rabbitmq
@pytest.mark.parametrize("url", ["url", "amqp_url"])
def test_rabbitmqs_java_client_calls_our_server(rabbitmq: Any, url: str, tmp_path: Path) -> None:
    """Its RPC class uses RabbitMQ's direct reply-to."""
    place = Place(rabbitmq, getattr(rabbitmq, url), 0, declares=url == "amqp_url")
    queue = place.new_queue().removeprefix("/queue/")
    service = tmp_path / "service.py"
    service.write_text("def handle(payload):\n    return {'asked': payload}\n")
    server = Running(
        tmp_path / "server", "consume", "--broker", place.url, "--queue", queue, "--dlq", f"{queue}.dead",
        "--model", f"{service}:handle", "--reply", **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
    )  # fmt: skip
    try:
        server.wait_for("broker connected")
        bodies = [("application/json", b'{"n": 1}'), ("application/msgpack", msgpack.packb({"raw": b"\0\xff"}))]
        asked = "".join(f"{kind} {base64.b64encode(body).decode()}\n" for kind, body in bodies * 20)
        done = subprocess.run(
            ["java", *rabbit_peer(rabbitmq, "ask", queue)],
            input=asked, capture_output=True, text=True, timeout=LONG, check=False,
        )  # fmt: skip
    finally:
        server.kill()
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [line.split(" ") for line in done.stdout.splitlines()]
    assert len(answers) == 40
    for (status, content_type, body), (kind, _) in zip(answers, bodies * 20, strict=True):
        assert (status, content_type) == ("SUCCESS", kind)
        found = base64.b64decode(body)
        assert found == b'{"asked":{"n":1}}' or msgpack.unpackb(found) == {"asked": {"raw": b"\0\xff"}}


@pytest.mark.rabbitmq
def test_the_usual_server_answers_our_client(rabbitmq: Any, connect: Connect) -> None:
    """It declares its queue as it likes, reads and writes MessagePack, and says nothing of content types."""
    queue, client = new_queue().removeprefix("/queue/"), connect(rabbitmq.amqp_url)
    with usual_server(rabbitmq.amqp_port, queue, lambda args: {"asked": args}):
        calls = [client.call_nowait(queue, {"n": n}, timeout_s=LONG, codec="msgpack") for n in range(200)]
        assert [call.result().value for call in calls] == [{"asked": {"n": n}} for n in range(200)]
        value = {"raw": b"\0\xff", "list": [1, 2.5, None], "text": "grüße"}
        reply = client.call(queue, value, timeout_s=LONG, codec="msgpack")
    assert (reply.value, reply.status) == ({"asked": value}, None)
    assert client.counts.answered == 201
