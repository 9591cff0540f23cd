"""A topic that is deleted and made anew while a consumer does not run: it goes on with its old position otherwise."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka, eventually
from tests.support.running import Running

pytestmark = [pytest.mark.kafka, pytest.mark.long]

MODEL = """
import os

def predict(payload):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(payload["n"] + "\\n")
    return {}
"""


def test_a_topic_with_more_events_than_were_read_of_the_old_one_is_read_from_its_beginning(
    tmp_path: Path, kafka: Kafka, raw_kafka: RawKafka
) -> None:
    topic = raw_kafka.topic(2)
    (tmp_path / "model.py").write_text(MODEL)
    notes = tmp_path / "seen"
    notes.touch()

    def is_seen(numbers: list[str]) -> bool:
        return set(numbers) <= set(notes.read_text().split())

    def send(prefix: str, count: int) -> list[str]:
        numbers = [f"{prefix}{number}" for number in range(2 * count)]
        for partition in (0, 1):
            own = numbers[partition::2]
            raw_kafka.send(topic, *(json.dumps({"n": number}).encode() for number in own), partition=partition)
        return numbers

    old = send("old", 50)
    consumer = Running(
        tmp_path / "consumer", "--debug", "consume", "--broker", kafka.topic_url(topic, group=topic), "--model",
        f"{tmp_path / 'model.py'}:predict", "--publish", "none", SEEN=str(notes),
        INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
    )  # fmt: skip
    try:
        consumer.wait_for("was assigned of the topic with the id", times=2)
        eventually(lambda: is_seen(old))
        eventually(lambda: {each.offset for each in raw_kafka.committed(topic, topic).values()} == {50})
        consumer.process.send_signal(signal.SIGSTOP)
        raw_kafka.delete(topic)
        eventually(lambda: not raw_kafka.exists(topic))
        raw_kafka.topic(2, name=topic)
        new = send("new", 80)
        consumer.process.send_signal(signal.SIGCONT)
        eventually(lambda: is_seen(new))
        eventually(lambda: {each.offset for each in raw_kafka.committed(topic, topic).values()} == {80})
        consumer.wait_for("is not the one that was read", times=2)
    finally:
        consumer.kill()
