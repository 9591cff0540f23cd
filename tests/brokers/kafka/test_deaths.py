"""Dead letters of Spring for Apache Kafka: where they came from and why."""

from __future__ import annotations

import pytest

from infertool import brokers
from infertool.brokers.kafka import deaths
from infertool.brokers.kafka.conventions import CONVENTIONS
from infertool.deadletters import letters
from infertool.deadletters.letters import Writer
from infertool.deadletters.replay.sending import replay
from infertool.message import BrokerDeath
from infertool.settings.broker import BrokerSettings
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka

AT = 1_790_000_000_000
_SPRINGS = "org.springframework.kafka.listener."
# As DeadLetterPublishingRecoverer writes them.
SPRING: list[tuple[str, bytes | None]] = [
    ("kafka_dlt-exception-fqcn", f"{_SPRINGS}ListenerExecutionFailedException".encode()),
    ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_dlt-exception-message", b"Listener failed; no amount"),
    ("kafka_dlt-exception-stacktrace", b"java.lang.IllegalStateException: no amount\n\tat app.Listener"),
    ("kafka_dlt-original-topic", b"orders"),
    ("kafka_dlt-original-partition", (3).to_bytes(4, "big")),
    ("kafka_dlt-original-offset", (1204).to_bytes(8, "big")),
    ("kafka_dlt-original-timestamp", (AT - 5000).to_bytes(8, "big")),
    ("kafka_dlt-original-timestamp-type", b"CreateTime"),
    ("kafka_dlt-original-consumer-group", b"scoring"),
]
CAUSE = "java.lang.IllegalStateException: Listener failed; no amount"


def without(*names: str) -> list[tuple[str, bytes | None]]:
    return [(name, value) for name, value in SPRING if name.removeprefix("kafka_dlt-") not in names]


@pytest.mark.parametrize(
    ("pairs", "death"),
    [
        ([("kafka_dltx", b"1"), ("trace", b"2")], None),
        ([("trace", b"2"), *SPRING], BrokerDeath("orders", CAUSE, complete=True, at_ms=AT)),
        (
            without("exception-cause-fqcn", "exception-message"),
            BrokerDeath("orders", f"{_SPRINGS}ListenerExecutionFailedException", complete=True, at_ms=AT),
        ),
        (without("original-topic"), BrokerDeath("", CAUSE, complete=False, at_ms=AT)),
        (without("original-offset"), BrokerDeath("orders", CAUSE, complete=False, at_ms=AT)),
        (
            [*SPRING, ("kafka_dlt-original-topic", b"orders.dlq"), ("kafka_dlt-exception-message", b"again")],
            BrokerDeath("orders", "java.lang.IllegalStateException: again", complete=True, at_ms=AT),
        ),
        ([("kafka_dlt-original-topic", None)], BrokerDeath("", "", complete=False, at_ms=AT)),
    ],
    ids=["none", "whole", "without-cause", "without-topic", "without-offset", "two-deaths", "null"],
)  # fmt: skip
def test_what_spring_writes(pairs: list[tuple[str, bytes | None]], death: BrokerDeath | None) -> None:
    assert deaths.of(pairs, AT) == death


@pytest.mark.kafka
def test_a_letter_of_spring_is_replayed_to_its_topic_without_the_marks(kafka: Kafka, raw_kafka: RawKafka) -> None:
    topic = raw_kafka.topic()
    raw_kafka.send(topic, b'{"id": 1}', key=b"k", headers=[("trace", b"2"), *SPRING])
    broker = brokers.open(BrokerSettings(url=f"{kafka.url}/elsewhere", receipt_timeout_s=60.0), name="tests")
    broker.connect()
    try:
        (message,) = broker.browse(topic, limit=5, timeout_s=60).messages
    finally:
        broker.close(60)
    letter = letters.read(message)
    assert (letter.writer, letter.origin, letter.error_type) == (Writer.BROKER, "orders", "IllegalStateException")
    assert letter.failed_at == pytest.approx(message.properties.timestamp_ms / 1000)  # type: ignore[operator]
    sent = replay(letter, letter.origin, CONVENTIONS, replay_id="r1")
    assert (sent.destination, sent.headers["trace"], sent.headers["kafka_key"]) == ("orders", "2", "k")
    assert not [name for name in sent.headers if name.startswith("kafka_dlt-")]
