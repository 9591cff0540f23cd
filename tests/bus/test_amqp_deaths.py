"""RabbitMQ over AMQP: nothing is lost over deaths of the consumer, and of the broker."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from tests.support.rabbitmq import RabbitMQ
from tests.support.running import CREDENTIALS, environment

pytestmark = [pytest.mark.long, pytest.mark.rabbitmq]

EVENTS = 1200
KILLS = 20
LONG = 240.0
MODEL = """
import time
class Model:
    def predict(self, payload):
        time.sleep(0.004)
        if payload["n"] % 20 == 0:
            raise ValueError("every twentieth")
        return {"n": payload["n"]}
"""


@pytest.fixture(params=["classic", "quorum"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RabbitMQ]:
    with RabbitMQ.of_a_test(tmp_path, request.param, "events", "dead") as server:
        yield server


class Consumers:
    """Consumers one after the other; what they publish is kept over their deaths."""

    def __init__(self, broker: RabbitMQ, folder: Path) -> None:
        (folder / "model.py").write_text(MODEL)
        self._broker = broker
        self._folder = folder
        self._log = folder / "log"
        self._begun_at = 0
        self.published = folder / "published.jsonl"
        self.published.touch()

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "infertool", "consume", "--broker", self._broker.amqp_url, "--queue", "events",
            "--dlq", "dead", "--model", f"{self._folder}/model.py:Model", "--publish", "stdout", "--max-attempts", "1",
            "--window", "50", *options,
        ]  # fmt: skip
        with self.published.open("ab") as out, self._log.open("ab") as log:
            self._begun_at = log.tell()
            return subprocess.Popen(command, stdout=out, stderr=log, env=environment(**CREDENTIALS))

    def wait_for(self, count: int) -> None:
        self._wait_until(lambda: self.published.read_bytes().count(b"\n") >= count)

    def wait_connected(self) -> None:
        """Wait for the newest one: whoever starts without a broker is refused."""
        self._wait_until(lambda: b"broker connected" in self._log.read_bytes()[self._begun_at :])

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONG
        while not is_so():
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.01)

    def results(self) -> set[int]:
        found = set()
        for line in self.published.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut off by a death
            payload = record.get("payload", record)
            if payload.get("status") == "SUCCESS":
                found.add(payload["original_payload"]["n"])
        return found


def test_every_event_is_published_or_a_dead_letter(broker: RabbitMQ, tmp_path: Path) -> None:
    with broker.pika() as channel:
        channel.confirm_delivery()
        for n in range(EVENTS):
            channel.basic_publish(
                "", "events", json.dumps({"n": n}).encode(), pika.BasicProperties(delivery_mode=2, message_id=f"m-{n}")
            )
    consumers = Consumers(broker, tmp_path)
    for kill in range(KILLS):
        running = consumers.start()
        consumers.wait_for((kill + 1) * EVENTS // (2 * KILLS))
        running.kill()
        running.wait()
    running = consumers.start()
    consumers.wait_for(EVENTS // 2 + 50)
    # The one before may have published so many.
    consumers.wait_connected()
    broker.kill()
    broker.start()
    consumers.wait_for(EVENTS * 3 // 4)
    running.terminate()
    assert running.wait(LONG) == 0
    running = consumers.start("--exit-when-idle", "5s")
    assert running.wait(LONG) == 0
    dead: dict[int, set[str]] = {}
    stages: dict[int, set[str]] = {}
    with broker.pika() as channel:
        assert channel.queue_declare("events", passive=True).method.message_count == 0
        while (got := channel.basic_get("dead", auto_ack=True))[0]:
            n = json.loads(got[2])["n"]
            dead.setdefault(n, set()).add(got[1].headers["dlq_id"])
            stages.setdefault(n, set()).add(got[1].headers["dlq_stage"])
    assert consumers.results() | dead.keys() == set(range(EVENTS))
    # A suspect that was in work alone at a death is not tried again.
    assert {n for n in dead if n % 20 and stages[n] != {"crash"}} == set()
    # The doubles of a letter have one id.
    assert all(len(ids) == 1 for ids in dead.values())
