"""The engine on real brokers, with consumers as processes, through kill -9 of both: each request ends once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from infertool.gateway import classes
from infertool.gateway import request_rows as rows
from infertool.gateway.engine import Engine
from infertool.gateway.request import State
from infertool.gateway.store import Store
from infertool.settings.tree import GatewaySettings
from tests.gateway.engines import connected, engine_on, outcome_of, until
from tests.gateway.requests import a_request
from tests.rpc.conftest import Place, place
from tests.support.brokers import settings
from tests.support.gateway_burst import PLACES
from tests.support.kafka import Kafka
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawkafka import RawKafka, headers_of
from tests.support.responder import Responder, silent
from tests.support.running import CREDENTIALS, LONG, Running, environment

COUNT = 300
MODEL = """
import time

def slow(payload):
    time.sleep(0.02)
    return payload
"""


@pytest.fixture(params=PLACES)
def broker(request: pytest.FixtureRequest) -> Place:
    return place(request)


class Program:
    """The process with the engine, and what it has said."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.engine_program", *map(str, arguments)],
            stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        self.said.extend(line.strip() for line in self.process.stdout if line.endswith("\n"))

    def ids(self, word: str) -> list[str]:
        return [line.split()[1] for line in self.said.copy() if line.startswith(f"{word} ")]

    def wait_for(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + LONG
        while not condition():
            assert self.process.poll() is None or "drained" in self.said
            assert time.monotonic() < deadline, self.said[-5:]
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()


class Killed(Protocol):
    """What is ended at the end of a test."""

    def kill(self) -> None: ...


K = TypeVar("K", bound=Killed)


class Start(Protocol):
    """Starts a process."""

    def __call__(self, kind: Callable[..., K], *arguments: object, **env: str) -> K: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as started:

        def start(kind: Callable[..., K], *arguments: object, **env: str) -> K:
            process = kind(*arguments, **env)
            started.callback(process.kill)
            return process

        yield start


def test_gateway_and_consumers_are_killed(broker: Place, start: Start, tmp_path: Path) -> None:
    queue = broker.new_queue()
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    store = tmp_path / "store"

    def consumer() -> Running:
        running = start(
            Running, tmp_path / "consumers",
            "consume", "--broker", broker.url, "--queue", queue, "--dlq", f"{queue}.dead",
            "--model", f"{model}:slow", "--concurrency", "2", "--reply",
            **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
        )  # fmt: skip
        running.wait_for("broker connected")
        return running

    first_consumer = consumer()
    first = start(Program, broker.url, store, queue, COUNT)
    first.wait_for(lambda: len(first.ids("ended")) > COUNT / 6)
    first.kill()
    assert len(set(first.ids("ended"))) < COUNT

    second = start(Program, broker.url, store, queue, COUNT)
    second.wait_for(lambda: len(second.ids("ended")) > COUNT / 6)
    first_consumer.kill()
    second.kill()

    consumer()
    third = start(Program, broker.url, store, queue, COUNT)
    third.wait_for(lambda: "drained" in third.said)
    third.process.wait(LONG)

    accepted = {each for program in (first, second, third) for each in program.ids("accepted")}
    opened = Store(store, rows.TABLES)
    try:
        ended = opened.read(
            lambda connection: connection.execute("SELECT id, state, idempotency_key FROM requests").fetchall()
        )
        results = {row[0]: opened.read(partial(rows.find, request_id=row[0])) for row in ended}
    finally:
        opened.close()
    assert Counter(state for _, state, _ in ended) == {State.SUCCEEDED.value: COUNT}
    assert accepted <= {row[0] for row in ended}
    assert {key for _, _, key in ended} == {f"k{number}" for number in range(COUNT)}
    for request_id, _, key in ended:
        assert outcome_of(results[request_id]).body == b'{"n":%d}' % int(key[1:])


@pytest.mark.rabbitmq
@pytest.mark.parametrize(("url", "port"), [("amqp_url", "amqp_port"), ("url", "stomp_port")], ids=["amqp", "stomp"])
def test_the_reply_queue_is_deleted(rabbitmq: RabbitMQ, tmp_path: Path, url: str, port: str) -> None:
    """The gateway connects anew, with another queue, and sends again what was under way."""
    place = Place(rabbitmq, getattr(rabbitmq, url), getattr(rabbitmq, port), declares=url == "amqp_url")
    queue = place.new_queue()

    async def test() -> None:
        async with engine_on(place.url, tmp_path) as engine:
            await connected(engine)
            accepted = [await engine.submit(a_request(queue=queue)) for _ in range(5)]
            with Responder(place.url, queue, silent) as responder:
                [message, *_] = await asyncio.to_thread(responder.wait_for, 5)
            name = (message.properties.reply_to or "").rpartition("/")[2]
            await asyncio.to_thread(rabbitmq.admin.delete_queue, name)
            await until(lambda: engine.figures()["sent_again"] >= 5)
            with Responder(place.url, queue):
                ended = await asyncio.gather(*(engine.wait(each.id, LONG) for each in accepted))
            assert {each.state for each in ended} == {State.SUCCEEDED}

    asyncio.run(test())


@pytest.mark.kafka
def test_requests_over_kafka(kafka: Kafka, raw_kafka: RawKafka, tmp_path: Path) -> None:
    topic, replies = raw_kafka.topic(2), raw_kafka.topic(2)
    gateway, url = GatewaySettings(name="t"), f"kafka://{kafka.address('SASL_PLAINTEXT')}"

    async def test() -> None:
        engine = Engine(gateway, settings(url, reply_topic=replies), classes.parse(gateway), tmp_path, {})
        await engine.start()
        try:
            await connected(engine)
            accepted = [await engine.submit(a_request(queue=topic)) for _ in range(20)]
            with Responder(f"{url}/{topic}?group={topic}", topic):
                ended = await asyncio.gather(*(engine.wait(each.id, LONG) for each in accepted))
            assert {each.state for each in ended} == {State.SUCCEEDED}
        finally:
            await engine.close()

    asyncio.run(test())
    # Each request went out once, and named a partition for its reply.
    named = [dict(headers_of(record))["kafka_replyTopic"] for record in raw_kafka.all(topic)]
    assert named == [replies.encode()] * 20
