"""Share groups: each event is accepted or released alone, and none is forgotten."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from infertool import brokers
from infertool.brokers.kafka import share, share_group
from infertool.brokers.kafka.share import ShareSubscription
from infertool.brokers.kafka.share_group import Terms
from infertool.brokers.kafka.share_outcomes import Outcomes
from infertool.brokers.kafka.share_round import ShareMessage, to_share_message
from infertool.brokers.partitioned import Partitioned
from infertool.brokers.port import Move
from infertool.errors import BrowseRefusedError, StaleMessagesError
from infertool.message import BodyKind, Message, Outgoing
from infertool.settings.broker import BrokerSettings
from tests.support import kafka as servers
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka
from tests.support.running import infertool

pytestmark = pytest.mark.kafka

TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A Kafka whose locks may be short."""
    shortest = {
        "group.share.min.record.lock.duration.ms": "1000",
        "group.share.record.lock.duration.ms": "6000",
    }
    with servers.running(tmp_path_factory.mktemp("kafka") / "k", shortest) as running:
        yield running


@pytest.fixture
def raw(quick: Kafka) -> Iterator[RawKafka]:
    opened = RawKafka(quick.client())
    yield opened
    opened.close()


@dataclass
class Listener:
    told: list[tuple[str, frozenset[str]]] = field(default_factory=list)

    def revoking(self, partitions: frozenset[str]) -> None:
        self.told.append(("revoking", partitions))

    def revoked(self, partitions: frozenset[str]) -> None:
        self.told.append(("revoked", partitions))


class Member:
    """A broker with one subscription."""

    def __init__(self, kafka: Kafka, topic: str, window: int = 100) -> None:
        url = f"kafka+share://{kafka.address()}/{topic}?group={topic}"
        self.broker = brokers.open(BrokerSettings(url=url, receipt_timeout_s=TIMEOUT_S), name="tests")
        self.broker.connect()
        self.listener = Listener()
        subscription = self.broker.subscribe(topic, window=window)
        assert isinstance(subscription, ShareSubscription)
        assert isinstance(subscription, Partitioned)
        subscription.listen(self.listener)
        self.subscription = subscription

    def take(self, count: int) -> list[Message]:
        taken: list[Message] = []
        deadline = time.monotonic() + TIMEOUT_S
        while len(taken) < count:
            assert time.monotonic() < deadline, f"{len(taken)} of {count} came"
            taken += self.subscription.receive(count - len(taken), 0.5)
        return taken

    def close(self) -> None:
        self.broker.close(TIMEOUT_S)


@pytest.fixture
def join(quick: Kafka) -> Iterator[Callable[..., Member]]:
    members: list[Member] = []

    def joined(topic: str, **options: Any) -> Member:
        members.append(Member(quick, topic, **options))
        return members[-1]

    yield joined
    for member in members:
        member.close()


def bodies(messages: Sequence[Message]) -> list[int]:
    return sorted(int(message.body) for message in messages)


def test_what_is_accepted_is_done_and_what_is_released_comes_again(raw: RawKafka, join: Callable[..., Member]) -> None:
    """A new group begins at the beginning; a dead letter is there before its event is accepted."""
    topic, dead = raw.topic(), raw.topic()
    raw.alter_group(topic, share_record_lock_duration_ms=60_000)
    raw.send(topic, *(b"%d" % number for number in range(20)))
    first = join(topic)
    assert first.broker.capabilities.delivery_count
    taken = first.take(20)
    assert bodies(taken) == list(range(20))
    assert {(each.properties.delivery_count, each.redelivered, each.source) for each in taken} == {(0, False, topic)}
    first.subscription.ack(taken[:10])
    moved = Move(taken[10], Outgoing(dead, taken[10].body))
    first.subscription.move([moved], TIMEOUT_S)
    with pytest.raises(StaleMessagesError):
        first.subscription.move([moved], TIMEOUT_S)
    assert [record.value() for record in raw.take(dead, 1)] == [b"10"]
    first.subscription.release(taken[11:13])
    first.subscription.ack(taken[13:18])
    first.close()
    second = join(topic)
    again = second.take(4)
    assert bodies(again) == [11, 12, 18, 19]
    assert {(each.properties.delivery_count, each.redelivered) for each in again} == {(1, True)}
    second.subscription.ack(again)
    with pytest.raises(BrowseRefusedError):
        second.broker.browse(topic, limit=1, timeout_s=TIMEOUT_S)


@pytest.mark.long
def test_an_event_whose_lock_ends_is_revoked_comes_again_and_is_never_forgotten(
    raw: RawKafka, join: Callable[..., Member], caplog: pytest.LogCaptureFixture
) -> None:
    """The group's limit of deliveries would drop it."""
    topic = raw.topic(1)
    raw.alter_group(topic, share_delivery_count_limit=2)
    raw.send(topic, b"1", key=b"key", headers=[("name", b"value")])
    member = join(topic)
    (first,) = member.take(1)
    (second,) = member.take(1)
    assert (second.id, second.properties.delivery_count, second.epoch > first.epoch) == (first.id, 1, True)
    gone = frozenset({f"{topic}/0"})
    assert member.listener.told[:2] == [("revoking", gone), ("revoked", gone)]
    member.subscription.ack([first])
    assert member.subscription.stale_acks == 1
    (third,) = member.take(1)
    assert (third.body, third.headers, third.properties.delivery_count) == (b"1", second.headers, 0)
    assert third.id == f"{topic}/0/1"
    assert f"1 events of {topic} were not done before their lock ended" in caplog.text
    assert "were sent anew to the end of the topic" in caplog.text
    member.subscription.ack([third])


def test_a_fault_of_the_reader_does_not_end_it(
    raw: RawKafka, join: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = raw.topic()
    first = join(topic)
    read = to_share_message
    faults = [ValueError("a fault")]

    def once(record: Any, epoch: int) -> ShareMessage:
        if faults:
            raise faults.pop()
        return read(record, epoch)

    monkeypatch.setattr(share, "to_share_message", once)
    raw.send(topic, b"1")
    assert bodies(first.take(1)) == [1]
    assert not faults


def test_who_waits_for_acceptance_hears_of_a_broker_that_is_away() -> None:
    class Away:
        def commit_sync(self, _timeout_s: float) -> None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

        def acknowledge_offset(self, *_: object) -> None: ...

    told: Future[None] = Future()
    outcomes = Outcomes("topic", 5, send=lambda *_: None, timeout_s=TIMEOUT_S)
    message = ShareMessage("topic/0/0", "topic", {}, b"", BodyKind.TEXT, False, 1, "0", partition="topic/0")
    with pytest.raises(KafkaException):
        outcomes.tell(Away(), [message], [], [told])
    assert told.done()


def test_a_slow_event_holds_up_only_the_next_poll(raw: RawKafka, join: Callable[..., Member]) -> None:
    topic = raw.topic()
    raw.alter_group(topic, share_record_lock_duration_ms=60_000)
    raw.send(topic, b"0", b"1", b"2")
    member = join(topic, window=2)
    taken = member.take(2)
    assert member.subscription.receive(1, 0.2) == []
    member.subscription.ack(taken[:1])
    assert bodies(member.take(1)) == [2]
    raw.send(topic, b"3")
    member.close()
    assert bodies(join(topic).take(3)) == [1, 2, 3]


def test_a_lock_that_is_too_short_and_a_lag_that_is_not_told_are_said(
    quick: Kafka, raw: RawKafka, tmp_path: Path
) -> None:
    topic = raw.topic()
    raw.topic(name=f"{topic}.dlq")
    raw.alter_group(topic, share_record_lock_duration_ms=20_000)
    url = f"kafka+share://{quick.address()}/{topic}?group={topic}"
    examined = infertool("doctor", "--broker", url, "--only", "broker", "-o", "json")
    checks = {each["check"]: each for each in json.loads(examined.stdout)["checks"]}
    wrong = "consume.timeout_s is 30 s, and an event that takes longer than 18 s is delivered again"
    raise_it = f"or raise share.record.lock.duration.ms of the share group {topic}"
    assert (checks["broker.policy"]["status"], checks["broker.depth"]["status"]) == ("warn", "skip")
    assert wrong in checks["broker.policy"]["hint"]
    assert raise_it in checks["broker.policy"]["hint"]
    assert f"kafka-share-groups.sh --describe --offsets --group {topic}" in checks["broker.depth"]["value"]
    raw.send(topic, b"{}")
    consumed = infertool(
        "consume", "--broker", url, "--model", "fixtures/models/echo.py:predict", "--publish", "none",
        "--max-messages", "1", INFERTOOL_CONSUME__STATE_DIR=str(tmp_path),
    )  # fmt: skip
    assert consumed.returncode == 0, consumed.stderr
    assert wrong in consumed.stderr


@pytest.mark.parametrize(
    ("config", "terms"),
    [
        ({}, Terms(30.0, 5)),
        ({"share.record.lock.duration.ms": "15000", "share.delivery.count.limit": "10"}, Terms(15.0, 10)),
    ],
)
def test_terms_of_a_group(config: dict[str, str], terms: Terms) -> None:
    assert share_group.terms(config) == terms
