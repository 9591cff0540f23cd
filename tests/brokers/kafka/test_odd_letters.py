"""Dead letters that Kafka does not take: their events stay, the error says what to do, and then they go."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

from infertool.brokers.kafka.broker import KafkaBroker
from infertool.brokers.kafka.subscription import KafkaSubscription
from infertool.brokers.port import Move
from infertool.errors import InfertoolError, MoveRefusedError, ReceiptTimeoutError, RefusedError
from infertool.message import Outgoing
from infertool.secret import Secret
from tests.brokers.kafka.conftest import OpenBroker
from tests.support.brokers import take
from tests.support.kafka import Kafka
from tests.support.kafkaproxy import KafkaProxy
from tests.support.rawkafka import RawKafka, eventually

pytestmark = pytest.mark.kafka

_S = 120.0
# Of other requests than moves: longer than this test waits.
RECEIPT_S = 10 * _S


def _forbid(raw: RawKafka, topic: str) -> None:
    raw.forbid("guest", "WRITE", topic=topic)


def _allow(raw: RawKafka, topic: str) -> None:
    raw.allow("guest", "WRITE", topic=topic)


def _shrink(raw: RawKafka, topic: str) -> None:
    raw.alter(topic, max_message_bytes=500)


def _grow(raw: RawKafka, topic: str) -> None:
    raw.alter(topic, max_message_bytes=1_000_000)


@pytest.mark.parametrize(
    ("obstruct", "mend", "words"),
    [
        (_forbid, _allow, "TOPIC_AUTHORIZATION_FAILED.*give the user the right .*Write to send"),
        (_shrink, _grow, "larger than the topic's max.message.bytes .MSG_SIZE_TOO_LARGE.; raise it for the topic"),
    ],
    ids=["right", "size"],
)
def test_a_letter_that_is_refused_keeps_its_event(
    kafka: Kafka,
    open_kafka: OpenBroker,
    raw_kafka: RawKafka,
    obstruct: Callable[[RawKafka, str], None],
    mend: Callable[[RawKafka, str], None],
    words: str,
) -> None:
    topic, dead = raw_kafka.topic(1), raw_kafka.topic(1)
    raw_kafka.allow("guest", "READ", topic=topic)
    raw_kafka.allow("guest", "READ", group=topic)
    raw_kafka.allow("guest", "READ", "WRITE", topic=dead)
    raw_kafka.send(topic, b"0" * 800, b"1" * 800)
    url = kafka.topic_url(topic, "SASL_PLAINTEXT", group=topic)
    broker = open_kafka(url, user="guest", password=Secret("guest"))
    subscription = broker.subscribe(topic, window=10)
    assert isinstance(subscription, KafkaSubscription)
    first, second = take(subscription, 2)
    subscription.move([Move(first, Outgoing(dead, first.body))], _S)
    obstruct(raw_kafka, dead)
    # A broker does not hear of it at once.
    eventually(lambda: _refusal(broker, Outgoing(dead, b"p" * 800)))
    with pytest.raises(MoveRefusedError, match=words):
        subscription.move([Move(second, Outgoing(dead, second.body))], _S)
    assert subscription.committed() == {f"{topic}/0": 1}
    [again] = take(subscription, 1)
    assert (again.id, again.redelivered) == (second.id, True)
    mend(raw_kafka, dead)
    eventually(lambda: not _refusal(broker, Outgoing(dead, b"p" * 800)))
    subscription.move([Move(again, Outgoing(dead, again.body))], _S)
    assert raw_kafka.committed(topic, topic)[0].offset == 2
    letters = [record.value() for record in raw_kafka.all(dead)]
    assert [value for value in letters if value != b"p" * 800] == [b"0" * 800, b"1" * 800]


def test_the_first_letter_on_a_stalled_line_ends_in_its_time(
    kafka: Kafka, open_kafka: OpenBroker, raw_kafka: RawKafka
) -> None:
    """Before it is sent, its topic is looked up."""
    topic, dead = raw_kafka.topic(1), raw_kafka.topic(1)
    raw_kafka.send(topic, b"0")
    with KafkaProxy(kafka.port()) as line:
        broker = open_kafka(f"{line.url}/{topic}?group={topic}", receipt_timeout_s=RECEIPT_S)
        subscription = broker.subscribe(topic, window=10)
        assert isinstance(subscription, KafkaSubscription)
        [first] = take(subscription, 1)
        line.stall()
        ends: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        move = [Move(first, Outgoing(dead, first.body))]
        threading.Thread(target=lambda: ends.put(_fault(subscription, move)), daemon=True).start()
        fault = ends.get(timeout=_S)
        assert isinstance(fault, ReceiptTimeoutError)
        assert "did not answer in time" in str(fault)
        line.resume()
        [again] = take(subscription, 1)
        eventually(lambda: not _refusal(broker, Outgoing(dead, b"p")))
        subscription.move([Move(again, Outgoing(dead, again.body))], _S)
    assert [record.value() for record in raw_kafka.all(dead)] == [b"p", b"0"]


def _fault(subscription: KafkaSubscription, moves: list[Move]) -> Exception | None:
    """Return how a move of little time ends."""
    try:
        subscription.move(moves, 0.3)
    except InfertoolError as fault:
        return fault
    return None


def _refusal(broker: KafkaBroker, outgoing: Outgoing) -> str:
    """Return why a message is refused, empty if it is taken."""
    ends: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    try:
        broker.send(outgoing, ends.put)
    except RefusedError as refused:
        return str(refused)
    return str(ends.get(timeout=_S) or "")
