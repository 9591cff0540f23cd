"""Calls over a real Kafka: our client with a server of ours, and with one that only knows Spring's headers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from infertool import rpc
from infertool.brokers import header_types
from infertool.brokers.kafka import replies, topics
from infertool.brokers.kafka.messages import to_message
from infertool.errors import CallTimeoutError, ConnectionLostError, RefusedError, UnroutableError
from infertool.message import Outgoing, Properties
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings
from tests.brokers.kafka.conftest import OpenBroker
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka, eventually

pytestmark = pytest.mark.kafka

_S = 120.0


@pytest.fixture
def server(kafka: Kafka, raw_kafka: RawKafka) -> Iterator[str]:
    """Return the topic of a server that is no infertool: it answers with the headers of the request, as Spring does."""
    topic = raw_kafka.topic(2)
    stopped = threading.Event()
    consumer = Consumer({**kafka.client(), "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0), TopicPartition(topic, 1, 0)])
    producer = Producer({**kafka.client(), "linger.ms": 0, "message.timeout.ms": 1000})

    def serve() -> None:
        while not stopped.is_set():
            record = consumer.poll(0.1)
            if record is None or record.error():
                continue
            headers: dict[str, bytes] = dict(record.headers() or [])  # type: ignore[arg-type]  # as what it got has them
            correlation: dict[str, str | bytes | None] = {"kafka_correlationId": headers["kafka_correlationId"]}
            number = int.from_bytes(headers["kafka_replyPartition"], "big")
            reply_topic = headers["kafka_replyTopic"].decode()
            with contextlib.suppress(KafkaException):  # there may be no such partition any more
                producer.produce(reply_topic, b'{"echo":%s}' % record.value(), partition=number, headers=correlation)
            producer.flush(_S)

    thread = threading.Thread(target=serve)
    thread.start()
    yield topic
    stopped.set()
    thread.join()
    consumer.close()


def _client(kafka: Kafka, reply_topic: str) -> rpc.Client:
    return rpc.Client(BrokerSettings(url=kafka.url, reply_topic=reply_topic, receipt_timeout_s=60.0))


def test_calls_are_answered_each_with_its_own_reply(kafka: Kafka, raw_kafka: RawKafka, server: str) -> None:
    # Two callers on one partition: each takes its own.
    reply_topic = raw_kafka.topic(1)
    with _client(kafka, reply_topic) as one, _client(kafka, reply_topic) as two:
        calls = [
            (number, client.call_nowait(server, {"number": number}, timeout_s=_S))
            for number, client in enumerate([one, two] * 50)
        ]
        for number, call in calls:
            assert call.result().value == {"echo": {"number": number}}
        assert (one.counts.answered, two.counts.answered) == (50, 50)
        assert one.counts.lost == one.counts.timed_out == 0


def test_a_reply_goes_back_with_the_very_bytes_of_the_correlation_id(
    kafka: Kafka, raw_kafka: RawKafka, open_kafka: OpenBroker
) -> None:
    topic, replies = raw_kafka.topic(), raw_kafka.topic(3)
    # What Spring sends: a UUID's bytes, and the partition in four.
    correlation = bytes(range(240, 256))
    headers = [
        ("kafka_correlationId", correlation), ("kafka_replyTopic", replies.encode()),
        ("kafka_replyPartition", b"\0\0\0\2"),
    ]  # fmt: skip
    raw_kafka.send(topic, b"{}", headers=headers)
    [record] = raw_kafka.take(topic, 1)
    request = to_message(record, partition=f"{topic}/0", epoch=1, redelivered=False)
    assert header_types.of(request) == {}
    broker = open_kafka()
    assert request.properties.reply_to is not None
    address = broker.conventions.reply_queue(request.properties.reply_to)
    done = threading.Event()
    answer = Outgoing(address, b"r", properties=Properties(correlation_id=request.properties.correlation_id))
    broker.send(answer, lambda _: done.set(), declare=False)
    assert done.wait(_S)
    [reply] = raw_kafka.take(replies, 1)
    assert (reply.partition(), dict(reply.headers() or [])["kafka_correlationId"]) == (2, correlation)


def test_a_client_needs_a_topic_for_replies(kafka: Kafka, raw_kafka: RawKafka, open_kafka: OpenBroker) -> None:
    missing = raw_kafka.name()
    client = _client(kafka, missing)
    with pytest.raises(RefusedError, match=r"no topic for replies.*broker.reply_topic, or set broker.declare"):
        client.connect()
    makes = open_kafka(declare=True, reply_topic=missing)
    replies = makes.open_replies(lambda _: None)
    # What was just made may not be known everywhere yet.
    eventually(lambda: replies.address == f"{missing}/0")
    assert makes.reply_exists(f"{missing}/0", _S) is None
    assert makes.reply_exists(f"{missing}/7", _S) is False
    assert makes.reply_exists(raw_kafka.name(), _S) is False
    replies.close()
    assert replies.address is None


def test_calls_that_nobody_answers_end(kafka: Kafka, raw_kafka: RawKafka) -> None:
    with _client(kafka, raw_kafka.topic()) as client:
        with pytest.raises(UnroutableError):
            client.call(raw_kafka.name(), 1, timeout_s=_S)
        with pytest.raises(CallTimeoutError):
            client.call(raw_kafka.topic(), 1, timeout_s=0.2)


def test_a_topic_for_replies_that_was_deleted_is_read_anew_and_what_waits_is_sent_again(
    kafka: Kafka, raw_kafka: RawKafka, server: str
) -> None:
    told: list[ConnectionEvent] = []
    reply_topic = raw_kafka.topic(3)
    settings = BrokerSettings(url=kafka.url, reply_topic=reply_topic, reconnect_max_s=1.0)
    with rpc.Client(settings, on_connection=told.append) as client:
        assert client.call(server, 1, timeout_s=_S).value == {"echo": 1}
        raw_kafka.delete(reply_topic)
        waiting = client.call_nowait(server, 2, timeout_s=_S, retry=True)
        eventually(lambda: any(event.state is ConnectionState.LOST for event in told))
        if not raw_kafka.exists(reply_topic):  # the server's producer may have made it anew
            raw_kafka.topic(1, name=reply_topic)
        assert waiting.result().value == {"echo": 2}
        assert client.call(server, 3, timeout_s=_S).value == {"echo": 3}
    lost = next(event for event in told if event.state is ConnectionState.LOST)
    assert f"replies of {reply_topic}/" in lost.reason
    assert "cannot be read" in lost.reason


def test_a_fault_of_the_reader_is_no_server_that_does_not_answer(
    kafka: Kafka, raw_kafka: RawKafka, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = BrokerSettings(url=kafka.url, reply_topic=raw_kafka.topic(), reconnect_max_s=1.0)
    with rpc.Client(settings) as client:
        with monkeypatch.context() as patch:
            patch.setattr(replies, "to_message", None)
            with pytest.raises(ConnectionLostError, match="cannot be read: TypeError"):
                client.call(server, 1, timeout_s=_S)
        eventually(lambda: client.call(server, 2, timeout_s=_S, retry=True).value == {"echo": 2})


def test_a_call_that_is_sent_again_after_its_topic_is_not_known_any_more_is_answered(
    kafka: Kafka, raw_kafka: RawKafka, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if each question were a minute ago.
    monkeypatch.setattr(topics, "_KNOWN_S", 0.0)
    told: list[ConnectionEvent] = []
    settings = BrokerSettings(url=kafka.url, reply_topic=raw_kafka.topic(), reconnect_max_s=1.0)
    with rpc.Client(settings, on_connection=told.append) as client:
        with monkeypatch.context() as patch:
            patch.setattr(replies, "to_message", None)
            waiting = client.call_nowait(server, 1, timeout_s=_S, retry=True)
            eventually(lambda: any(event.state is ConnectionState.LOST for event in told))
        assert waiting.result().value == {"echo": 1}


def test_a_topic_for_replies_that_may_not_be_read_is_told(kafka: Kafka, raw_kafka: RawKafka) -> None:
    reply_topic = raw_kafka.topic()
    url = f"kafka://{kafka.address('SASL_PLAINTEXT')}"
    settings = BrokerSettings(url=url, user="guest", password=Secret("guest"), reply_topic=reply_topic)
    raw_kafka.allow("guest", "DESCRIBE", topic=reply_topic)
    client = rpc.Client(settings)
    with pytest.raises(RefusedError, match=rf"the topic for replies, {reply_topic}.*TOPIC_AUTHORIZATION_FAILED"):
        client.connect()
    raw_kafka.allow("guest", "READ", topic=reply_topic)
    told: list[ConnectionEvent] = []
    with rpc.Client(settings, on_connection=told.append) as client:
        assert client.connected
        raw_kafka.forbid("guest", "READ", topic=reply_topic)
        eventually(lambda: any("TOPIC_AUTHORIZATION_FAILED" in event.reason for event in told))
        eventually(lambda: not client.connected)
        raw_kafka.allow("guest", "READ", topic=reply_topic)
        eventually(lambda: client.connected)
