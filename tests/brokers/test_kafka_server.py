"""The real Kafka that tests start: what it keeps, whom it lets in, and what the peers beside it do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer

from tests.support import kafka as servers
from tests.support.kafka import Kafka
from tests.support.kafkapeers import ABORT, COMMIT, Record, consume, produce
from tests.support.kafkaproxy import KafkaProxy
from tests.support.rawkafka import TIMEOUT_S, Committed, RawKafka, eventually

pytestmark = pytest.mark.kafka
BODIES = [b'{"n": %d}' % number for number in range(10)]
# Not long ago: retention deletes what is older than a week.
SENT_AT = int(time.time() * 1000) - 60_000
HEADERS: list[tuple[str, bytes | None]] = [("b", b"\xff\0"), ("a", None), ("b", b"twice")]


def values(messages: list[Message]) -> list[bytes | None]:
    return [message.value() for message in messages]


def refusal(error: KafkaError | None) -> int:
    assert error is not None
    return error.code()


@pytest.mark.long
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_what_was_confirmed_is_there_after_a_restart(tmp_path: Path, end: str) -> None:
    with servers.running(tmp_path / "kafka") as server:
        raw = RawKafka(server.client())
        topic = raw.topic(2)
        raw.send(topic, *BODIES, partition=1)
        raw.commit("group", topic, 1, 4, "a note")
        getattr(server, end)()
        assert not server.is_running()
        server.start()
        raw = RawKafka(server.client())
        assert values(raw.take(topic, 10)) == BODIES
        assert raw.committed("group", topic) == {1: Committed(4, "a note")}
    assert str(server.base) not in " ".join(map(_command, psutil.process_iter()))


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


LOGINS = [
    pytest.param("SASL_PLAINTEXT", "PLAIN", id="plain"),
    pytest.param("SASL_PLAINTEXT", "SCRAM-SHA-256", id="scram"),
    pytest.param("SASL_PLAINTEXT", "OAUTHBEARER", id="token"),
    pytest.param("SASL_SSL", "SCRAM-SHA-256", id="scram-tls"),
    pytest.param("SSL", "", id="certificate"),
]


@pytest.mark.parametrize(("listener", "mechanism"), LOGINS)
def test_a_guest_gets_what_it_is_allowed(kafka: Kafka, raw_kafka: RawKafka, listener: str, mechanism: str) -> None:
    topic, closed = raw_kafka.topic(), raw_kafka.topic()
    raw_kafka.send(topic, b"one")
    config = kafka.client(listener, "guest", mechanism)
    if not mechanism:
        config["ssl.certificate.location"] = config["ssl.key.location"] = str(kafka.certificate("guest"))
    raw_kafka.allow("guest", "READ", topic=topic)
    raw_kafka.allow("guest", "READ", group=topic)
    with _consumer(config, topic, topic) as consumer:
        assert _first(consumer).value() == b"one"
    for group, wanted, code in (
        ("closed", topic, KafkaError.GROUP_AUTHORIZATION_FAILED),
        (topic, closed, KafkaError.TOPIC_AUTHORIZATION_FAILED),
    ):
        with _consumer(config, group, wanted) as consumer:
            assert refusal(_first(consumer).error()) == code
    assert refusal(_sent(config, topic)) == KafkaError.TOPIC_AUTHORIZATION_FAILED


def _consumer(config: dict[str, Any], group: str, topic: str) -> Consumer:
    more = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({**config, **more})
    consumer.subscribe([topic])
    return consumer


def _first(consumer: Consumer) -> Message:
    message = consumer.poll(TIMEOUT_S)
    assert message is not None
    return message


def _sent(config: dict[str, Any], topic: str) -> KafkaError | None:
    """Return why a message was not taken."""
    answers: list[KafkaError | None] = []
    producer = Producer({**config, "message.timeout.ms": int(TIMEOUT_S * 1000)})
    producer.produce(topic, b"x", on_delivery=lambda error, _: answers.append(error))
    producer.flush(TIMEOUT_S)
    return answers[0]


def test_a_wrong_password_is_refused(kafka: Kafka) -> None:
    errors: list[KafkaError] = []
    config = {**kafka.client("SASL_PLAINTEXT"), "sasl.password": "wrong", "error_cb": errors.append}
    with Consumer({**config, "group.id": "g"}) as consumer:
        eventually(lambda: consumer.poll(0.1) or errors)
    assert KafkaError._AUTHENTICATION in [error.code() for error in errors]


def test_a_client_stays_with_a_proxy(kafka: Kafka, raw_kafka: RawKafka) -> None:
    topic = raw_kafka.topic()
    with KafkaProxy(kafka.port()) as proxy:
        through = RawKafka({**kafka.client(), "bootstrap.servers": proxy.address})
        through.send(topic, b"one")
        before = proxy.connections
        proxy.cut()
        through.send(topic, b"two")
        assert proxy.connections > before
        assert values(through.take(topic, 2)) == [b"one", b"two"]


def test_messages_come_out_as_they_were_sent(raw_kafka: RawKafka) -> None:
    topic = raw_kafka.topic(2)
    raw_kafka.send(topic, b"one", None, key=b"\xff", headers=HEADERS, partition=1, timestamp=SENT_AT)
    found = raw_kafka.take(topic, 2)
    assert [(m.partition(), m.key(), m.value(), m.headers(), m.timestamp()[1]) for m in found] == [
        (1, b"\xff", b"one", HEADERS, SENT_AT),
        (1, b"\xff", None, HEADERS, SENT_AT),
    ]


def test_a_topic_changes_under_its_readers(raw_kafka: RawKafka) -> None:
    topic = raw_kafka.topic()
    raw_kafka.send(topic, *BODIES)
    raw_kafka.delete_records(topic, {0: 4})
    assert raw_kafka.watermarks(topic) == {0: (4, 10)}
    raw_kafka.add_partitions(topic, 3)
    assert raw_kafka.watermarks(topic) == {0: (4, 10), 1: (0, 0), 2: (0, 0)}
    assert raw_kafka.send(topic, b"one", partition=2) == [(2, 0)]
    raw_kafka.delete(topic)


def test_retention_takes_seconds(raw_kafka: RawKafka) -> None:
    topic = raw_kafka.topic(segment_ms=100, retention_ms=1000)
    raw_kafka.send(topic, *BODIES)
    eventually(lambda: raw_kafka.watermarks(topic) == {0: (10, 10)})


def test_compaction_takes_seconds(raw_kafka: RawKafka) -> None:
    topic = raw_kafka.topic(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01)

    def compacted() -> bool:
        # What is written last is in the open segment, which is not compacted.
        raw_kafka.send(topic, b"new", key=b"key")
        return len(raw_kafka.all(topic)) < raw_kafka.watermarks(topic)[0][1]

    eventually(compacted)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_java_sends_transactions_of_each_codec(kafka: Kafka, raw_kafka: RawKafka, codec: str) -> None:
    topic = raw_kafka.topic()
    record = Record(topic, b"kept" * 100, b"key", HEADERS, 0, SENT_AT)
    aborted = Record(topic, b"aborted")
    produce(
        kafka.address(), [record, COMMIT, aborted, ABORT, record, COMMIT],
        {"transactional.id": topic, "compression.type": codec},
    )  # fmt: skip
    found = raw_kafka.take(topic, 2)
    assert [(m.key(), m.value(), m.headers(), m.timestamp()[1]) for m in found] == [
        (b"key", b"kept" * 100, HEADERS, SENT_AT)
    ] * 2
    assert b"aborted" in values(raw_kafka.all(topic, uncommitted=True))


def test_java_reads_what_others_send(kafka: Kafka, raw_kafka: RawKafka) -> None:
    topic = raw_kafka.topic()
    raw_kafka.send(topic, b"one", None, key=b"\xff", headers=HEADERS, timestamp=SENT_AT)
    sent = Record(topic, b"one", b"\xff", HEADERS, 0, SENT_AT, 0)
    assert consume(kafka.address(), topic, 2, {"group.id": topic}) == [
        sent, Record(topic, None, b"\xff", HEADERS, 0, SENT_AT, 1),
    ]  # fmt: skip
    assert raw_kafka.committed(topic, topic)[0].offset == 2
    eventually(lambda: not raw_kafka.describe(topic).members)


@pytest.mark.long
def test_a_cluster_does_without_one_node(tmp_path: Path) -> None:
    with servers.running_cluster(tmp_path / "cluster") as cluster:
        raw = RawKafka(cluster.client())
        topic = raw.topic(3, replicas=3)
        raw.send(topic, *BODIES)
        raw.commit("group", topic, 0, 1)
        cluster.nodes[0].kill()
        raw.send(topic, *BODIES)
        raw.commit("group", topic, 0, 2, "later")
        cluster.nodes[0].start()
        cluster.nodes[1].kill()
        assert len(raw.take(topic, 20)) == 20
        assert raw.committed("group", topic) == {0: Committed(2, "later")}
