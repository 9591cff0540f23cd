"""The broker port on a real Kafka, but for subscriptions: sends, looks, measures, rights, replies."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import pytest
from confluent_kafka import Producer

from infertool.brokers.kafka import session
from infertool.brokers.kafka.broker import KafkaBroker
from infertool.errors import ReceiptTimeoutError, RefusedError, UnroutableError
from infertool.message import BodyKind, Outgoing, Properties
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.secret import Secret
from tests.brokers.kafka.conftest import OpenBroker
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka, eventually

pytestmark = pytest.mark.kafka

_S = 120.0


def _send(broker: KafkaBroker, outgoing: Outgoing, **options: Any) -> Exception | None:
    ends: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    broker.send(outgoing, ends.put, **options)
    return ends.get(timeout=_S)


def test_a_message_is_sent_as_it_is(open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    broker, topic, stamp_ms = open_kafka(), raw_kafka.topic(3), time.time_ns() // 1_000_000 - 1000
    headers = {"text": "é", "data": "/w==", "none": "", "kafka_key": "k"}
    properties = Properties(correlation_id="c", reply_to="r/2", content_type="text/plain", timestamp_ms=stamp_ms)
    types = {"data": "bytes", "none": "null"}
    assert _send(broker, Outgoing(f"{topic}/1", b"body", BodyKind.TEXT, headers, properties, types)) is None
    assert (
        _send(broker, Outgoing(topic, b"", headers={"kafka_tombstone": "true"}, types={"kafka_tombstone": "bool"}))
        is None
    )
    [one] = [record for record in raw_kafka.take(topic, 2) if record.key()]
    assert (one.partition(), one.key(), one.value(), one.timestamp()) == (1, b"k", b"body", (1, stamp_ms))
    assert one.headers() == [
        ("text", "é".encode()), ("data", b"\xff"), ("none", None), ("content-type", b"text/plain"),
        ("kafka_correlationId", b"c"), ("kafka_replyTopic", b"r"), ("kafka_replyPartition", b"\0\0\0\2"),
    ]  # fmt: skip
    [two] = [record for record in raw_kafka.all(topic) if record.key() is None]
    assert two.value() is None


def test_each_of_many_is_answered_once(open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    broker, topic = open_kafka(), raw_kafka.topic(2)
    ends: dict[int, Exception | None] = {}
    done = threading.Event()

    def on_ends(told: Any) -> None:
        for token, error in told:
            assert token not in ends
            ends[token] = error
        if len(ends) == 3001:
            done.set()

    broker.send_all([(Outgoing(topic, b"%d" % number), number) for number in range(3000)], on_ends)
    broker.send_all([(Outgoing(f"{topic}.missing", b""), 3000)], on_ends)
    assert done.wait(_S)
    assert isinstance(ends.pop(3000), UnroutableError)
    assert set(ends.values()) == {None}
    assert {record.value() for record in raw_kafka.all(topic)} == {b"%d" % number for number in range(3000)}


def test_a_missing_topic_is_made_only_where_that_is_asked_for(open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    missing = raw_kafka.name()
    broker = open_kafka()
    with pytest.raises(UnroutableError, match=f"there is no topic {missing} at .*; create it"):
        _send(broker, Outgoing(missing, b""))
    with pytest.raises(UnroutableError):
        broker.subscribe(missing, window=1)
    makes = open_kafka(declare=True)
    with pytest.raises(UnroutableError):
        _send(makes, Outgoing(missing, b""), declare=False)
    assert _send(makes, Outgoing(missing, b"")) is None
    with pytest.raises(UnroutableError, match="there is no partition 99 of topic"):
        _send(makes, Outgoing(f"{missing}/99", b""))
    assert len(raw_kafka.all(missing)) == 1


def test_a_topic_that_is_deleted_is_not_made_by_what_is_sent_to_it(open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    """The broker would make it, with its default partitions."""
    topic = raw_kafka.topic(3)
    broker = open_kafka(receipt_timeout_s=3.0)

    def fails() -> bool:
        try:
            return _send(broker, Outgoing(topic, b"x")) is not None
        except UnroutableError:
            return True

    assert not fails()
    raw_kafka.delete(topic)
    eventually(fails)
    assert fails()
    assert not raw_kafka.exists(topic)


def test_a_message_that_is_too_large_stops_no_others(open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    broker, topic = open_kafka(), raw_kafka.topic(max_message_bytes=3000)
    ends: queue.SimpleQueue[tuple[int, Exception | None]] = queue.SimpleQueue()
    # Together they are too large for a batch.
    sizes = [1000, 1000, 5000, 1000, 1000, 100_000, 1000]
    pairs = [(Outgoing(topic, b"x" * size), number) for number, size in enumerate(sizes)]

    def on_ends(told: Any) -> None:
        for end in told:
            ends.put(end)

    broker.send_all(pairs, on_ends)
    found = dict(ends.get(timeout=_S) for _ in sizes)
    refused = {number: error for number, error in found.items() if error}
    assert refused.keys() == {2, 5}
    for error in refused.values():
        assert isinstance(error, RefusedError)
        assert "MSG_SIZE_TOO_LARGE" in error.reason
        assert "message.max.bytes" in str(error)
    assert len(raw_kafka.all(topic)) == 5
    assert _send(broker, Outgoing(topic, b"after")) is None


def test_a_bulk_sender_sends_all_and_counts_what_is_refused(open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    broker, topic = open_kafka(), raw_kafka.topic(2, max_message_bytes=3000)
    sender = broker.bulk_sender(Outgoing(topic, b"", BodyKind.TEXT, {"fixed": "1"}), ["number", "kafka_key"])
    for first in range(0, 1000, 100):
        assert sender.wait_for_room(_S)
        sender.send([((str(number), f"k{number}"), b"{}") for number in range(first, first + 100)])
    assert sender.flush(_S)
    assert sender.refused == 0
    records = raw_kafka.all(topic)
    assert {record.key() for record in records} == {b"k%d" % number for number in range(1000)}
    assert all(dict(record.headers() or []).keys() == {"fixed", "number"} for record in records)
    sender.send([(("1", "k"), b"x" * 5000)])
    assert sender.flush(_S)
    assert sender.refused == 1
    assert "MSG_SIZE_TOO_LARGE" in sender.reason


def test_a_look_shows_what_the_group_has_not_settled(kafka: Kafka, open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    topic = raw_kafka.topic(2, retention_ms=-1)
    for number in range(6):
        raw_kafka.send(topic, b"%d" % number, partition=number % 2, timestamp=1_000_000 + number)
    raw_kafka.commit(f"{topic}-group", topic, 0, 1, _progress([range(2, 3)]))
    raw_kafka.commit(f"{topic}-group", topic, 1, 1, "of another program")
    broker = open_kafka(kafka.topic_url(topic, group=f"{topic}-group"))
    shown = broker.browse(topic, limit=10, timeout_s=_S)
    assert [message.body for message in shown.messages] == [b"2", b"3", b"5"]
    assert (shown.complete, shown.depth) == (True, 3)
    assert f"the group {topic}-group has not settled" in shown.note
    cut = broker.browse(topic, limit=2, timeout_s=_S)
    assert ([message.body for message in cut.messages], cut.complete, cut.depth) == ([b"2", b"3"], False, 3)
    # Another queue than the consumed one is read by a group of its own.
    elsewhere = open_kafka().browse(topic, limit=10, timeout_s=_S)
    assert (len(elsewhere.messages), elsewhere.complete) == (6, True)
    depth = broker.measure(topic, _S)
    assert depth is not None
    assert (depth.size, depth.consumers, depth.enqueued, depth.dequeued) == (3, 0, 6, 3)
    assert broker.oldest_sent_ms(topic, _S) == 1_000_002
    lag = broker.lag(topic, _S)
    assert lag is not None
    assert (lag.messages, lag.lost, lag.gap) == (3, 0, 2)
    assert lag.seconds is not None
    assert lag.seconds > 1_000_000
    raw_kafka.delete_records(topic, {1: 3})
    after = broker.lag(topic, _S)
    assert after is not None
    assert (after.messages, after.lost) == (1, 2)


def _progress(done: list[range]) -> str:
    from infertool.brokers.kafka.metadata import encode

    return encode(done, done[-1].stop)


def test_marks_of_transactions_are_no_messages(kafka: Kafka, open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    topic, group = raw_kafka.topic(), raw_kafka.name()
    producer = Producer({**kafka.client(), "transactional.id": topic})
    producer.init_transactions(_S)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(topic, b"1")
        producer.produce(topic, b"2")
        end(_S)
    # A transaction's mark is written a moment after its end.
    raw_kafka.take(topic, 2)
    broker = open_kafka(kafka.topic_url(topic, group=group))
    shown = broker.browse(topic, limit=10, timeout_s=_S)
    assert ([message.body for message in shown.messages], shown.complete, shown.depth) == ([b"1", b"2"], True, 2)
    # All that was committed is settled; the offsets of marks and of what was aborted follow.
    raw_kafka.commit(group, topic, 0, 2)
    depth, lag = broker.measure(topic, _S), broker.lag(topic, _S)
    assert depth is not None
    assert lag is not None
    assert (depth.size, lag.messages, lag.seconds) == (0, 0, None)


def test_what_is_empty_or_missing(open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    broker, topic = open_kafka(), raw_kafka.topic()
    empty = broker.browse(topic, limit=1, timeout_s=_S)
    assert (empty.messages, empty.complete, empty.depth) == ([], True, 0)
    assert broker.oldest_sent_ms(topic, _S) is None
    missing = broker.browse(raw_kafka.name(), limit=1, timeout_s=_S)
    assert (missing.messages, missing.complete, missing.depth) == ([], False, None)


@pytest.mark.long
def test_rights_are_found_without_effect(kafka: Kafka, open_kafka: OpenBroker, raw_kafka: RawKafka) -> None:
    topic, hidden, group = raw_kafka.topic(2, retention_ms=172_800_000), raw_kafka.topic(), raw_kafka.name()
    raw_kafka.allow("guest", "READ", "DESCRIBE", topic=topic)
    raw_kafka.allow("guest", "READ", "DESCRIBE", group=group)
    url = kafka.topic_url(topic, "SASL_PLAINTEXT", group=group)
    broker = open_kafka(url, user="guest", password=Secret("guest"))
    access = broker.examine(topic, _S)
    assert (access.exists, access.read.allowed, access.write.allowed) == (True, True, False)
    assert access.write.reason == f"the user lacks the right to Write on the topic {topic}"
    unseen = broker.examine(hidden, _S)
    assert (unseen.exists, unseen.read.allowed, unseen.write.allowed) == (None, False, False)
    with pytest.raises(RefusedError, match=r"TOPIC_AUTHORIZATION_FAILED.*kafka-acls"):
        _send(broker, Outgoing(hidden, b""))
    # The refusal comes at once, or with the receipt. It is another one where the user may write to a topic elsewhere.
    with pytest.raises(RefusedError, match=r"to Write on a topic|Write to send"):
        raise _send(broker, Outgoing(topic, b"")) or AssertionError
    other = open_kafka(
        kafka.topic_url(topic, "SASL_PLAINTEXT", group=f"{group}.no"), user="guest", password=Secret("guest")
    )
    # The client asks for the coordinator of a group that it may not see until its time is over.
    assert other.examine(topic, 30.0).read.allowed is False
    owner = open_kafka().examine(topic, _S)
    assert (owner.exists, owner.read.allowed, owner.write.allowed) == (True, True, True)
    assert owner.policy is not None
    assert owner.policy.startswith("2 partitions, kept for 2 days, settled or not, then deleted")


def test_a_full_window_of_sends_waits_for_room(open_kafka: OpenBroker, raw_kafka: RawKafka, monkeypatch: Any) -> None:
    monkeypatch.setattr("infertool.brokers.kafka.producer._MOST_OPEN", 0)
    broker, topic = open_kafka(), raw_kafka.topic()
    with pytest.raises(ReceiptTimeoutError, match="confirms nothing"):
        _send(broker, Outgoing(topic, b""), room_s=0.01)
    assert raw_kafka.all(topic) == []


def test_a_connection_that_cannot_be_watched_is_lost_and_made_anew(
    open_kafka: OpenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[ConnectionEvent] = []
    with monkeypatch.context() as patch:
        patch.setattr(session, "_LEAST_CHECK_S", None)
        open_kafka(on_connection=told.append, heartbeat_s=0.1, reconnect_max_s=1.0)
        eventually(lambda: any("TypeError" in event.reason for event in told))
    eventually(lambda: told[-1].state is ConnectionState.CONNECTED)
