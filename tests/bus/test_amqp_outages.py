"""Requests over AMQP: each is answered at least once, over restarts of the broker and a line that is cut and stalls."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPError

from tests.support.amqpproxy import AmqpProxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.running import CREDENTIALS, Running

pytestmark = [pytest.mark.long, pytest.mark.rabbitmq]

REQUESTS = 1200
RESTARTS = 3
LONG = 240.0
SERVICE = """
import time

def handle(payload):
    time.sleep(0.004)
    if payload["n"] % 20 == 0:
        raise ValueError("every twentieth")
    return {"n": payload["n"]}
"""
IMPATIENT = {
    "INFERTOOL_BROKER__RECONNECT_MAX_S": "0.5",
    "INFERTOOL_BROKER__HEARTBEAT_S": "1",
    "INFERTOOL_BROKER__CONNECT_TIMEOUT_S": "2",
}


@pytest.fixture(params=["classic", "quorum"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RabbitMQ]:
    with RabbitMQ.of_a_test(tmp_path, request.param, "requests", "dead", "answers") as server:
        yield server


def ask(broker: RabbitMQ) -> None:
    """Send all requests; the answers go to a queue that outlives the broker."""
    with broker.pika() as channel:
        channel.confirm_delivery()
        for n in range(REQUESTS):
            properties = pika.BasicProperties(
                delivery_mode=2, message_id=f"m-{n}", correlation_id=f"{n}", reply_to="answers"
            )
            channel.basic_publish("", "requests", json.dumps({"n": n}).encode(), properties)


def answered(broker: RabbitMQ) -> int:
    with broker.pika() as channel:
        return int(channel.queue_declare("answers", passive=True).method.message_count)


def wait_for(broker: RabbitMQ, count: int, server: Running) -> None:
    deadline = time.monotonic() + LONG
    while True:
        try:
            if answered(broker) >= count:
                return
        except AMQPError:
            pass  # a quorum queue elects its leader after a restart
        assert time.monotonic() < deadline, server.log.read_text()[-2000:]
        time.sleep(0.05)


def test_every_request_is_answered(broker: RabbitMQ, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)

    def serve(url: str, *options: str) -> Running:
        return Running(
            tmp_path, "consume", "--broker", url, "--queue", "requests", "--dlq", "dead", "--reply",
            "--model", f"{tmp_path}/service.py:handle", "--max-attempts", "1", "--concurrency", "2", "-o", "json",
            *options, **CREDENTIALS, **IMPATIENT, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
        )  # fmt: skip

    ask(broker)
    with AmqpProxy(broker.amqp_port) as proxy:
        server = serve(proxy.url)
        try:
            step = REQUESTS // (RESTARTS + 4)
            for turn in range(1, RESTARTS + 1):
                wait_for(broker, turn * step, server)
                broker.kill()
                broker.start()
            wait_for(broker, (RESTARTS + 1) * step, server)
            proxy.cut()
            wait_for(broker, (RESTARTS + 2) * step, server)
            connections = proxy.connections
            proxy.stall()
            server.wait_for("no sign of life")
            proxy.resume()
            deadline = time.monotonic() + LONG
            while proxy.connections <= connections:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            wait_for(broker, (RESTARTS + 3) * step, server)
            server.terminate()
            summary = server.finish()
        finally:
            if server.process.poll() is None:
                server.kill()
        last = serve(broker.amqp_url, "--exit-when-idle", "5s").finish()
    assert summary["reconnects"] > RESTARTS
    for each in (summary, last):
        settled = each["succeeded"] + each["dead_lettered"] + each["handed_back"]
        assert each["received"] - each["recognised"] == settled, each
    statuses: dict[int, set[str]] = {}
    with broker.pika() as channel:
        while (got := channel.basic_get("answers", auto_ack=True))[0]:
            statuses.setdefault(int(got[1].correlation_id), set()).add(got[1].headers["status"])
    assert statuses.keys() == set(range(REQUESTS))
    assert {n for n, status in statuses.items() if status != {"SUCCESS" if n % 20 else "FAILED"}} == set()
