"""Request and reply over RabbitMQ against the usual pair of pika and msgpack, in turn in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infertool.rpc import Client
from tests.bench.harness.reference import NOOP
from tests.support.brokers import TIMEOUT_S, settings
from tests.support.rabbitmq import RabbitMQ
from tests.support.running import CREDENTIALS, Running
from tests.support.usual_pair import RpcClient

# Many short rounds in turn: what else a machine does falls on both.
ROUNDS = 15
CALLS = 200
MANY = 3000
OUTSTANDING = 64
PAYLOAD = {"request_id": "req-000001", "features": [float(n) for n in range(20)]}
SERVER = """
import sys
from tests.support.usual_pair import RpcServer
RpcServer(int(sys.argv[1]), sys.argv[2], lambda args: {"class": "A"}).run()
"""


@pytest.fixture
def servers(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Start both servers; return their queues."""
    usual, ours = "bench.rpc.usual", "bench.rpc.ours"
    with rabbitmq.pika() as channel:
        for queue in (ours, f"{ours}.dead"):
            channel.queue_declare(queue, durable=True)
        channel.queue_declare(usual)
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(rabbitmq.amqp_port), usual])
    server = Running(
        tmp_path / "server", "consume", "--broker", rabbitmq.amqp_url, "--queue", ours, "--dlq", f"{ours}.dead",
        "--model", NOOP, "--reply", **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path),
    )  # fmt: skip
    try:
        server.wait_for("broker connected")
        yield usual, ours
    finally:
        process.kill()
        process.wait()
        server.kill()


def times_of(call: Callable[[], Any]) -> list[float]:
    """Return how long each of `CALLS` calls took, one after the other."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        assert call() is not None
        times.append(time.perf_counter() - began)
    return times


@contextmanager
def usual_client(port: int, queue: str) -> Iterator[RpcClient]:
    client = RpcClient(port, queue, timeout_s=TIMEOUT_S)
    yield client
    client.close()


def outstanding(client: Client, queue: str) -> float:
    """Return the calls a second with 64 of them outstanding."""
    began = time.perf_counter()
    waiting = [client.call_nowait(queue, PAYLOAD, timeout_s=TIMEOUT_S, codec="msgpack") for _ in range(OUTSTANDING)]
    for n in range(MANY):
        waiting[n % OUTSTANDING].result()
        if n < MANY - OUTSTANDING:
            waiting[n % OUTSTANDING] = client.call_nowait(queue, PAYLOAD, timeout_s=TIMEOUT_S, codec="msgpack")
    return MANY / (time.perf_counter() - began)


@pytest.mark.rabbitmq
def test_calls_against_the_usual_pair(rabbitmq: RabbitMQ, servers: tuple[str, str], row: Any) -> None:
    usual, ours = servers
    p50: dict[str, list[float]] = {"usual": [], "ours": []}
    rates: list[float] = []
    with usual_client(rabbitmq.amqp_port, usual) as pika, Client(settings(rabbitmq.amqp_url)) as client:
        call = lambda: client.call(ours, PAYLOAD, timeout_s=TIMEOUT_S, codec="msgpack")  # noqa: E731
        for _ in range(ROUNDS):
            usual_times, our_times = times_of(lambda: pika.call(PAYLOAD)), times_of(call)
            p50["usual"].append(statistics.median(usual_times))
            p50["ours"].append(statistics.median(our_times))
            rates.append(outstanding(client, ours) * sum(usual_times) / CALLS)
    slower = statistics.median(o / u for o, u in zip(p50["ours"], p50["usual"], strict=True))
    more = statistics.median(rates)
    usual_ms = statistics.median(p50["usual"]) * 1000
    row("call and reply, p50, against the usual pair", f"{slower:.2f}x (of {usual_ms:.2f} ms)", "at most 1.5x")
    row("calls a second, 64 outstanding, against its one at a time", f"{more:.1f}x", "at least 3x")
    assert client.counts.answered == ROUNDS * (CALLS + MANY)
