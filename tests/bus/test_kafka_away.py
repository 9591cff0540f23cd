"""Kafka goes away and comes back while letters are replayed, and while events fail: a failed move waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kafka as servers
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka, eventually
from tests.support.running import Running

pytestmark = [pytest.mark.kafka, pytest.mark.long]

COUNT = 60
MODEL = """
import os
import time

def predict(event):
    with open(os.environ["BEGUN"], "a") as begun:
        begun.write(".")
    while not os.path.exists(os.environ["MAY_FAIL"]):
        time.sleep(0.05)
    raise ValueError("it cannot be used")
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Kafka]:
    with servers.running(tmp_path / "server") as server:
        yield server


def send(server: Kafka, topic: str, count: int) -> None:
    raw = RawKafka(server.client())
    for name in ("events", "events.dlq"):
        raw.topic(1, name=name)
    raw.send(topic, *(b'{"n":%d}' % number for number in range(count)))
    raw.close()


def bodies(server: Kafka, topic: str) -> set[bytes | None]:
    raw = RawKafka(server.client())
    try:
        return {record.value() for record in raw.all(topic)}
    finally:
        raw.close()


def test_a_replay_waits_and_names_no_letter(tmp_path: Path, server: Kafka) -> None:
    send(server, "events.dlq", COUNT)
    replay = Running(
        tmp_path / "replay", "replay-dlq", "events.dlq", "--to", "events", "--yes", "--rate", "20/s", "-o", "json",
        "--broker", server.topic_url("events", group="g"),
    )  # fmt: skip
    try:
        eventually(lambda: len(bodies(server, "events")) > 0)
        server.kill()
        # In which letters could fail several times.
        replay.wait_for("connecting again", times=8)
        server.start()
        summary = replay.finish()
    finally:
        replay.kill()
    assert (summary["replayed"], summary["named"], summary["ended"]) == (COUNT, [], "end")
    assert len(bodies(server, "events")) == COUNT


def test_events_that_fail_meanwhile_are_dead_lettered_once_it_is_back(tmp_path: Path, server: Kafka) -> None:
    send(server, "events", COUNT)
    (tmp_path / "model.py").write_text(MODEL)
    begun, may_fail = tmp_path / "begun", tmp_path / "may_fail"
    begun.touch()
    consumer = Running(
        tmp_path / "consumer", "consume", "--model", f"{tmp_path}/model.py:predict", "--publish", "none",
        "--broker", server.topic_url("events", group="g"), "--max-attempts", "1", "--max-messages", str(COUNT),
        "-o", "json",
        BEGUN=str(begun), MAY_FAIL=str(may_fail), INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
    )  # fmt: skip
    try:
        eventually(lambda: begun.stat().st_size > 0)
        server.kill()
        consumer.wait_for("broker lost")
        may_fail.touch()
        consumer.wait_for("more failures")
        server.start()
        summary = consumer.finish()
    finally:
        consumer.kill()
    assert summary["dead_lettered"] == COUNT
    # Each comes again once, with the connection.
    assert summary["redelivered"] <= COUNT
    assert "cannot be dead-lettered" not in consumer.log.read_text()
    assert bodies(server, "events.dlq") == bodies(server, "events")
