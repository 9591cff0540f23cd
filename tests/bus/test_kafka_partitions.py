"""Consumers on a real Kafka: events that wait in retry topics, and partitions that go to another consumer."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from infertool.app.consumer import ConsumerApp
from infertool.deadletters.delayed import DUE
from infertool.settings import ModelSettings, Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import ConsumeSettings, DeadLetterSettings, PublishSettings
from tests.consumer.harness import wait_until
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka, headers_of
from tests.support.running import LONG, Running

pytestmark = [pytest.mark.kafka, pytest.mark.long]


class Run:
    """A consumer in a thread, and the documents that it published."""

    def __init__(self, url: str, state_dir: Path, waits: Sequence[str], **consume: Any) -> None:
        self.documents: list[dict[str, Any]] = []
        self.app = ConsumerApp(
            Settings(
                broker=BrokerSettings(url=url),
                deadletter=DeadLetterSettings(retry_topics=list(waits)),
                model=ModelSettings(spec="fixtures/models/waits.py:Waits"),
                publish=PublishSettings(mode="stdout"),
                consume=ConsumeSettings(
                    **{"retry_base_s": 0.01, "concurrency": 2, "state_dir": str(state_dir), **consume}
                ),
            ),
            write=lambda lines: self.documents.extend(map(json.loads, lines)),
        )
        self.app.start()

    @property
    def counts(self) -> dict[str, int]:
        return self.app.snapshot().counts

    def of(self, status: str) -> Counter[str]:
        return Counter(each["event_id"] for each in self.documents if each["status"] == status)

    def end(self) -> None:
        self.app.close()


Start = Callable[..., Run]


@pytest.fixture
def start(kafka: Kafka, tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def start(topic: str, *waits: str, **consume: Any) -> Run:
        url = kafka.topic_url(topic, group=topic)
        runs.append(Run(url, tmp_path / f"{len(runs)}", waits, **consume))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


def sent(raw: RawKafka, topic: str, count: int, timestamp: int = 0, **payload: Any) -> list[str]:
    ids = [f"{topic}-{number}" for number in range(count)]
    raw.send(topic, *(json.dumps({"event_id": each, **payload}).encode() for each in ids), timestamp=timestamp)
    return ids


def test_an_event_waits_in_retry_topics_over_a_restart(raw_kafka: RawKafka, start: Start, tmp_path: Path) -> None:
    # Its time is one that the other topics refuse, as they would delete at once what is older than their retention.
    ahead_ms = int((time.time() + 7200) * 1000)
    topic = raw_kafka.topic(1, message_timestamp_after_max_ms=10_000_000)
    for name in ("retry.1s", "retry.20s", "dlq"):
        raw_kafka.topic(1, name=f"{topic}.{name}")
    hold = tmp_path / "hold"
    hold.touch()
    [event_id] = sent(raw_kafka, topic, 1, ahead_ms, fails="again", hold=str(hold))
    first = start(topic, "1s", "20s", max_attempts=1)
    raw_kafka.send(topic, b'{"event_id": "next"}')
    wait_until(lambda: first.counts["delayed"] == 2)
    # It holds nothing up: both are done in the topic, as its commit says.
    wait_until(lambda: raw_kafka.committed(topic, topic)[0].offset == 2)
    first.end()
    assert (first.of("SUCCESS"), first.of("FAILED")) == (Counter({"next": 1}), Counter())
    second = start(topic, "1s", "20s", max_attempts=1)
    [letter] = raw_kafka.take(f"{topic}.dlq", 1)
    headers = {name: value or b"" for name, value in headers_of(letter)}
    [waited] = raw_kafka.all(f"{topic}.retry.20s")
    due_s = int(dict(headers_of(waited))[DUE] or b"0") / 1000
    assert datetime.fromisoformat(headers["dlq_failed_at"].decode()).timestamp() >= due_s
    assert headers["original_destination"] == topic.encode()
    assert headers["original_timestamp"] == str(ahead_ms).encode()
    assert headers["original_message_id"] == f"{topic}/0/0".encode()
    assert (headers["dlq_event_id"], headers["dlq_attempts"]) == (event_id.encode(), b"3")
    assert not [name for name in headers if "retry" in name]
    wait_until(lambda: second.counts["dead_lettered"] == 1)
    assert second.of("FAILED") == {event_id: 1}
    assert len(Path(f"{hold}.calls").read_text().splitlines()) == 3


def test_another_consumer_takes_partitions_over(raw_kafka: RawKafka, start: Start, tmp_path: Path) -> None:
    topic = raw_kafka.topic(4)
    hold = tmp_path / "hold"
    ids = sent(raw_kafka, topic, 400, hold=str(hold))
    first = start(topic, window=500)
    wait_until(lambda: first.app.snapshot().in_progress == 400)
    second = start(topic, window=500)
    # The second begins events of its partitions while the first still has two in its model.
    wait_until(lambda: first.counts["revoked"] and second.counts["received"])
    hold.touch()
    wait_until(lambda: len(first.of("SUCCESS") + second.of("SUCCESS")) == 400)
    wait_until(lambda: (lag := first.app.snapshot().lag) and lag.messages == 0)
    published = first.of("SUCCESS") + second.of("SUCCESS")
    assert set(published) == set(ids)
    # At most what was in the model of the first is repeated.
    assert published.total() <= 402
    for run in (first, second):
        run.end()
        counts = run.counts
        ended = sum(counts[name] for name in ("succeeded", "handed_back", "revoked"))
        assert counts["received"] - counts["recognised"] == ended


def test_processes_of_one_consumer_are_static_members_of_their_own(
    kafka: Kafka, raw_kafka: RawKafka, tmp_path: Path
) -> None:
    topic = raw_kafka.topic(4)
    raw_kafka.topic(1, name=f"{topic}.dlq")
    consumer = Running(
        tmp_path, "consume", "--broker", kafka.topic_url(topic, group=topic), "--model", "sim:", "--publish", "none",
        "--processes", "2", INFERTOOL_BROKER__KAFKA='{"group.instance.id": "me"}',
        INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
    )  # fmt: skip

    def shares() -> dict[str, int]:
        members = raw_kafka.describe(topic).members
        return {str(each.group_instance_id): len(each.assignment.topic_partitions) for each in members}

    wait_until(lambda: shares() == {f"me-1-{topic}": 2, f"me-2-{topic}": 2})
    consumer.process.terminate()
    assert consumer.process.wait(LONG) == 0
    assert "FENCED" not in consumer.log.read_text()
