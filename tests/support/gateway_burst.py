"""Gateways, consumer processes and clients that obey Retry-After, for bursts of ten times the capacity.

The capacity is that of models that sleep, so it hardly depends on the machine.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.rpc.conftest import Place
from tests.support.ports import free_port
from tests.support.running import CREDENTIALS, Running

CONSUMERS, WORKERS, INFERENCE_S = 2, 2, 0.4
CAPACITY = CONSUMERS * WORKERS / INFERENCE_S
BURST_S = 10.0
BUDGETS_S = {"interactive": 8.0, "standard": 12.0, "batch": 16.0}
PLACES = [
    pytest.param(("embedded_broker", "url", "stomp_port"), id="embedded"),
    pytest.param(("activemq", "url", "stomp_port"), marks=pytest.mark.activemq, id="activemq"),
    pytest.param(("rabbitmq", "amqp_url", "amqp_port"), marks=pytest.mark.rabbitmq, id="rabbitmq"),
]
"""The brokers that a gateway is tried on: fixture, URL and port."""
SETTINGS = f"""
[gateway]
trusted_proxies = ["127.0.0.1"]

[gateway.classes]
interactive = {{ weight = 8, budget = {BUDGETS_S["interactive"]}, priority = 8 }}
standard = {{ weight = 3, budget = {BUDGETS_S["standard"]}, priority = 4 }}
batch = {{ weight = 1, budget = {BUDGETS_S["batch"]}, priority = 1 }}
"""
MODEL = f"""
import time

def slow(payload):
    time.sleep({INFERENCE_S})
    return {{"n": payload["n"]}}
"""


@dataclass
class Client:
    """One caller with one request, who obeys Retry-After and asks again with the same key after a broken connection."""

    number: int
    class_name: str
    answers: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    # When it began, when the accepted request was sent, and when its result came. Seconds, monotonic.
    began: float = 0.0
    accepted: float = 0.0
    ended: float = 0.0
    broken: int = 0
    result: Any = None

    @property
    def retried(self) -> bool:
        return len(self.answers) > 1 and self.answers[0] == 429


async def ask(
    port: int, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [f"{method} {path} HTTP/1.1", "Host: h", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    if not head:
        raise ConnectionResetError("no answer")
    first, *named = head.decode().split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in named)}, rest


class Burst:
    """Gateways, each with a part of the clients, and what these met."""

    def __init__(self, gateways: Sequence[Gateway]) -> None:
        self.gateways = gateways
        self.clients: list[Client] = []

    async def client(self, client: Client) -> None:
        self.clients.append(client)
        body = json.dumps({"n": client.number}).encode()
        headers = {
            "Content_Type": "application/json", "Infertool_Class": client.class_name, "Prefer": "wait=60",
            "X_Forwarded_For": f"10.{client.number >> 16 & 255}.{client.number >> 8 & 255}.{client.number & 255}",
            "Idempotency_Key": f'"key-{client.number}"',
        }  # fmt: skip
        path, method = "/v1/infer", "POST"
        gateway = self.gateways[client.number // 4 % len(self.gateways)]
        while True:
            began = time.monotonic()
            client.began = client.began or began
            client.accepted = client.accepted or began
            try:
                status, told, answer = await ask(gateway.port, method, path, body, **headers)
            except (ConnectionError, OSError):
                client.broken += 1
                await asyncio.sleep(0.1)
                continue
            if status == 429:
                client.accepted = 0.0
            client.answers.append(status)
            if status == 200:
                client.ended, client.result = time.monotonic(), json.loads(answer)
                return
            if status not in {202, 429, 503} or "retry-after" not in told:
                return
            client.waits.append(float(told["retry-after"]))
            await asyncio.sleep(float(told["retry-after"]))
            if status == 202:
                path, method, body = told["location"], "GET", b""

    async def send(self, per_s: float, seconds: float, first: int) -> None:
        """Send at this rate, whatever comes back, and wait until all clients have their last answers."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for n in range(round(per_s * seconds)):
                await asyncio.sleep(max(0.0, begun + n / per_s - time.monotonic()))
                name = ("interactive", "standard", "interactive", "batch")[n % 4]
                group.create_task(self.client(Client(first + n, name)))


class Gateway:
    """The process, started again after a kill on the same port. `ports` are those of all gateways, by name."""

    def __init__(self, url: str, folder: Path, queue: str, name: str, ports: Mapping[str, int]) -> None:
        self._folder = folder / f"gateway-{name}"
        self._folder.mkdir()
        config = self._folder / "infertool.toml"
        peers = [f'{peer} = "http://127.0.0.1:{port}"' for peer, port in ports.items() if peer != name]
        config.write_text("\n".join([SETTINGS, "[gateway.peers]", *peers, ""]))
        self.name = name
        self.port = ports[name]
        self._arguments = (
            "--config", f"{config}", "gateway", "--listen", f"{self.port}", "--broker", url, "--queue", queue,
            "--state-dir", f"{self._folder / 'state'}", "-o", "json",
        )  # fmt: skip
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.running = Running(
            self._folder / "logs", *self._arguments, **CREDENTIALS, INFERTOOL_GATEWAY__NAME=self.name
        )  # fmt: skip
        assert self.running.process.stdout
        line = self.running.process.stdout.readline()
        assert line, self.running.log.read_text()
        assert json.loads(line)["event"] == "ready"

    def kill(self) -> None:
        self.running.kill()

    @property
    def memory(self) -> int:
        rss: int = psutil.Process(self.running.process.pid).memory_info().rss
        return rss


class Consumers:
    """Consumer processes of one queue."""

    def __init__(self, url: str, folder: Path, queue: str) -> None:
        folder.mkdir()
        (folder / "slow_model.py").write_text(MODEL)
        self._options = (
            "consume", "--broker", url, "--queue", queue, "--dlq", f"{queue}.dead", "--reply",
            "--model", f"{folder / 'slow_model.py'}:slow", "--concurrency", f"{WORKERS}",
        )  # fmt: skip
        self._folder = folder
        self.running = [self._start() for _ in range(CONSUMERS)]
        for each in self.running:
            each.wait_for("broker connected")

    def _start(self) -> Running:
        env = {"INFERTOOL_CONSUME__STATE_DIR": str(self._folder / "state")}
        return Running(self._folder / "logs", *self._options, **CREDENTIALS, **env)

    def kill_one(self) -> None:
        self.running.pop().kill()
        self.running.append(self._start())

    def close(self) -> None:
        for each in self.running:
            each.kill()


@dataclass
class Scene:
    gateways: list[Gateway]
    consumers: Consumers
    burst: Burst


async def warm_up(scene: Scene) -> None:
    """Have all consumers work, so that the gateway knows the rate."""
    await scene.burst.send(0.8 * CAPACITY, 5, 0)
    scene.burst.clients.clear()


@contextmanager
def burst_scene(place: Place, folder: Path, gateways: int = 1) -> Iterator[Scene]:
    """Run gateways and consumers on a new queue."""
    queue = place.new_queue()
    ports = {f"g{number}": free_port() for number in range(gateways)}
    with ExitStack() as stack:
        consumers = Consumers(place.url, folder / "consumers", queue)
        stack.callback(consumers.close)
        started = []
        for name in ports:
            started.append(Gateway(place.url, folder, queue, name, ports))
            stack.callback(started[-1].kill)
        yield Scene(started, consumers, Burst(started))


def burst(scene: Scene) -> int:
    """Send ten times the capacity for ten seconds; return the bytes by which the gateway grew that grew most."""

    async def run() -> int:
        await warm_up(scene)
        before = [gateway.memory for gateway in scene.gateways]
        await scene.burst.send(10 * CAPACITY, BURST_S, 10_000)
        return max(gateway.memory - old for gateway, old in zip(scene.gateways, before, strict=True))

    return asyncio.run(run())


def served_at_first_retry(clients: list[Client]) -> tuple[int, int]:
    """Return how many of those who were refused and came back were taken then, and how many came back."""
    retried = [client for client in clients if client.retried]
    return sum(client.answers[1] in {200, 202} for client in retried), len(retried)


def waits_of(clients: list[Client], class_name: str) -> list[float]:
    """Return the times from acceptance to result of a class, in order. Seconds."""
    return sorted(c.ended - c.accepted for c in clients if c.answers[-1] == 200 and c.class_name == class_name)
