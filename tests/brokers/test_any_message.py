"""Whatever a broker delivers is a message that all above can use, and goes out again as it came."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infertool.brokers import header_types
from infertool.brokers.amqp import deaths as amqp_deaths
from infertool.brokers.amqp import frames as amqp_frames
from infertool.brokers.amqp import messages as amqp
from infertool.brokers.amqp import properties as amqp_properties
from infertool.brokers.amqp.properties import Fields
from infertool.brokers.kafka import messages as kafka
from infertool.brokers.kafka.conventions import is_name
from infertool.brokers.stomp import dialects
from infertool.brokers.stomp.frames import Frame, FrameError, Limits
from infertool.brokers.stomp.parser import FrameParser
from infertool.brokers.stomp.statistics import parse_depth
from infertool.brokers.stomp.unreadable import DoubtfulParser
from infertool.cli.common import deadletters
from infertool.consumer.requests import deadline_ms
from infertool.deadletters import delayed, letters, record
from infertool.errors import RefusedError
from infertool.message import BrokerDeath, Message, Outgoing, Properties
from tests.brokers.kafka.test_messages import _Record
from tests.brokers.test_header_types import like

# Bytes of other programs, and what may be mistaken for something else.
TEXTS = st.binary(max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.sampled_from([
    "", "0", "4", "-5", "007", "9" * 30, "true", "text", "bytes", "dGV4dA==", "q", "expired", "2026-01-31T03:00:00Z",
    "a/7",
    "/queue/a", "\0", "\r\n", "grüße", "x" * 300, "{}", '{"a":"int"}', "base64:?",
])  # fmt: skip
NAMES = TEXTS | st.sampled_from([
    "amq-msg-type", "x-delivery-count", "x-death", "x-first-death-queue", "x-first-death-reason",
    "x-first-death-exchange",
    "original-destination", "originalExpiration", "dlqDeliveryFailureCause", "_AMQ_ORIG_ADDRESS", "cause-of-death",
    "message-id", "amqp-message-id", "amqp-expiration", "expiration", "timestamp", "expires", "priority", "persistent",
    "reply-to", "correlation-id", "content-type", "content-length", "redelivered", "type", "ack", "destination",
    "subscription",
    "event_id", "deadline", "dlq_id", "dlq_format", "replay_count", "original_destination", "kafka_key", "kafka_types",
    "kafka_tombstone",
    "kafka_dlt-original-topic", "kafka_dlt-original-partition", "kafka_dlt-original-offset", "kafka_dlt-exception-fqcn",
    "infertool_retry_due", "infertool_retry_origin", "infertool_retry_message_id", "infertool_retry_attempts",
])  # fmt: skip
SCALARS = (
    TEXTS | st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=8)
    | st.integers(0, 253_402_300_799).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
    | st.sampled_from([b"\xb5\xec\x6d", b"\x6e\xb7\x9e\xb1"])
)  # fmt: skip
SHORT_NAMES = NAMES.filter(lambda name: len(name) < 60)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT_NAMES, inner, max_size=3), max_leaves=6
)
DEATHS = st.lists(
    st.dictionaries(st.sampled_from(["queue", "reason", "count", "time"]), VALUES, max_size=4), max_size=3
)
BODIES = st.sampled_from([b"", b"{}", b"\xff", b"nul \0 in it", "grüße".encode()])
SHORT = st.none() | TEXTS.filter(lambda text: len(text) < 60)
FIELDS = st.builds(
    Fields,
    content_type=SHORT, content_encoding=SHORT,
    headers=st.none() | st.dictionaries(SHORT_NAMES, VALUES | DEATHS, max_size=5),
    delivery_mode=st.none() | st.integers(0, 255), priority=st.none() | st.integers(0, 255),
    correlation_id=SHORT, reply_to=SHORT, expiration=SHORT, message_id=SHORT,
    timestamp=st.none() | st.integers(0, 2**64 - 1) | st.integers(0, 10**12), type=SHORT,
)  # fmt: skip
HEADERS = st.dictionaries(NAMES, TEXTS, max_size=8)
RAW = st.none() | st.binary(max_size=9) | TEXTS.map(lambda text: text.encode("utf-8", "surrogateescape"))
# Of other names the client gives no headers at all.
PAIRS = st.lists(st.tuples(NAMES.filter(is_name), RAW), max_size=6)
TIMES = st.sampled_from([(0, -1), (1, 0), (2, 2**62)])
PIECES = st.binary(max_size=20) | st.sampled_from([
    b"MESSAGE\n", b"message-id:1\n", b"content-length:", b"3\n", b"\n\n", b"\n", b"\0", b"a:b\n", b"ack:1\n", b"mark",
    b"\0\nMESSAGE\n",
])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["size", "destinationName"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["map", "entry", "string", "long", "int"]), inner, max_size=4)
    ),
)


def check(message: Message) -> None:
    """Use a message as consumers, tables and archives do; nothing may fail, or be of another type than it says."""
    headers, types, known = message.headers, message.types, message.properties
    assert types.keys() <= headers.keys()
    header_types.from_texts(headers, types)
    assert all(isinstance(text, str) for text in (message.id, message.source, *headers, *headers.values()))
    msgspec.convert(msgspec.structs.asdict(known), Properties)
    if message.death:
        msgspec.convert(msgspec.structs.asdict(message.death), BrokerDeath)
    assert message.correlation_id == known.correlation_id
    assert message.coding == (known.content_type, known.content_encoding)
    assert record.dlq_id(message)
    assert letters.key(message)
    letter = letters.read(message)
    deadletters.details(letter)
    deadletters.dump(deadletters.document(letter))
    deadline_ms(message, 1.7e9)
    delayed.past(message)
    delayed.due_s(message)
    delayed.original(message)


def values(message: Message) -> dict[str, Any]:
    return header_types.from_texts(message.headers, message.types)


def sent_on(message: Message, destination: str = "other") -> Outgoing:
    """Return what a message becomes when it is sent on as it is."""
    return Outgoing(destination, message.body, message.kind, message.headers, message.properties, message.types)


def of_amqp(fields: Fields, body: bytes) -> Message:
    head = b"\0" * 12 + amqp_properties.encode(fields)
    return amqp.to_message(head, body, "in", 1, "t", redelivered=False)


@given(fields=FIELDS, body=BODIES)
@example(Fields(headers={"amq-msg-type": b"\xb5\xec\x6d"}), b"")
@example(Fields(headers={"x-delivery-count": True}), b"")
@example(Fields(headers={"x-delivery-count": -1}), b"")
@example(Fields(headers={"n": 2**63}), b"")
@example(Fields(timestamp=1_700_000_000_000_000), b"")
def test_what_comes_over_amqp_goes_out_the_same(fields: Fields, body: bytes) -> None:
    message = of_amqp(fields, body)
    check(message)
    if message.hides_body:
        return
    try:
        again = of_amqp(amqp.to_fields(sent_on(message), "a"), message.body)
    except RefusedError as refusal:
        assert "would copy it" in refusal.reason  # noqa: PT017
        return
    assert like(values(again), values(message))
    changed = {
        "delivery_count": 0,
        "message_id": again.properties.message_id,
        "timestamp_ms": again.properties.timestamp_ms,
    }
    assert again.properties == msgspec.structs.replace(message.properties, **changed)
    assert (again.kind, again.body) == (message.kind, body)
    assert again.properties.message_id == (message.properties.message_id or again.properties.message_id)
    if (sent_ms := message.properties.timestamp_ms) is not None:
        # AMQP's times are seconds.
        assert again.properties.timestamp_ms in {sent_ms, sent_ms - sent_ms % 1000}


@given(st.binary(max_size=80))
def test_any_bytes_are_properties_or_an_unreadable_message(data: bytes) -> None:
    check(amqp.to_message(b"\0" * 12 + data, b"", "in", 1, "t", redelivered=True))
    for decode in (amqp_frames.decode, amqp_frames.index):
        try:
            decode(data)
        except amqp_frames.FrameError:
            continue


@given(text=st.text(max_size=6), value=st.text(max_size=6) | VALUES)
@example("\ud800", "\ud800")
def test_any_text_can_be_sent_or_is_refused(text: str, value: object) -> None:
    """Texts of our own side, such as archives', may have halves of characters."""
    headers, types = header_types.to_texts({text: value})
    known = Properties(correlation_id=text, reply_to=text, type=text, message_id=text, content_type=text)
    outgoing = Outgoing("q", b"", headers=headers, types=types, properties=known)
    for encode in (
        lambda: amqp.encoded(amqp.to_fields(outgoing, "a"), "a"),
        lambda: kafka.to_record(outgoing, "a"),
        *(partial_send(dialect, outgoing) for dialect in DIALECTS),
    ):
        try:
            encode()
        except RefusedError:
            continue


DIALECTS = (dialects.ACTIVEMQ, dialects.ARTEMIS, dialects.RABBITMQ)


def partial_send(dialect: dialects.Dialect, outgoing: Outgoing) -> Callable[[], bytes]:
    return lambda: dialect.send(outgoing, {})


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
@given(headers=HEADERS, body=BODIES)
@example({"cause-of-death": "old"}, b"")
def test_any_message_over_stomp_can_be_used_and_sent_on(
    dialect: dialects.Dialect, headers: dict[str, str], body: bytes
) -> None:
    message = dialect.message(Frame("MESSAGE", headers, body), "/queue/in", 1)
    check(message)
    assert message.body == body
    if "cause-of-death" in headers:
        assert message.headers["cause-of-death"] == headers["cause-of-death"]
    [sent] = FrameParser().feed(dialect.send(sent_on(message, "/queue/other"), {}))
    theirs = {name: text for name, text in message.headers.items() if name not in _OF_SEND}
    assert theirs.items() <= sent.headers.items()
    assert sent.body == body or b"\0" in body


# What a dialect itself says in a SEND.
_OF_SEND = {
    "destination", "content-length", "amq-msg-type", "persistent", "destination-type", "amqp-message-id", "expiration",
    "timestamp", "message-id", "redelivered", "subscription", "ack", "receipt", "transaction",
    "priority", "expires", "reply-to", "correlation-id", "content-type", "content-encoding", "type", "amqp-expiration",
}  # fmt: skip


@given(pairs=PAIRS, key=st.none() | st.binary(max_size=4), body=st.none() | BODIES, time=TIMES)
@example([("amq-msg-type", b"\xb5\xec\x6d")], None, b"\xff", (0, -1))
@example([("a", None), ("kafka_types", b'{"a":"bytes"}')], None, b"", (0, -1))
def test_any_record_of_kafka_can_be_used_and_goes_out_the_same(
    pairs: list[tuple[str, bytes | None]], key: bytes | None, body: bytes | None, time: tuple[int, int]
) -> None:
    message = kafka.to_message(_Record(body, key, pairs, time), partition="in/3", epoch=2, redelivered=False)
    check(message)
    again = kafka.to_record(sent_on(message), "a")
    assert (again.key, again.value, again.headers) == (key, body, pairs)


@given(table=st.dictionaries(NAMES, VALUES | DEATHS, max_size=6))
def test_any_marks_of_rabbitmq_are_a_death_or_none(table: Mapping[str, Any]) -> None:
    death = amqp_deaths.of(table)
    if death is not None:
        msgspec.convert(msgspec.structs.asdict(death), BrokerDeath)


@given(pieces=st.lists(PIECES, max_size=12), version=st.sampled_from(["1.0", "1.1", "1.2"]))
def test_a_doubtful_parser_reads_frames_or_names_a_fault(pieces: list[bytes], version: str) -> None:
    parser = DoubtfulParser(limits=Limits(header_line=60, headers=5, body=30), mark=b"mark")
    parser.version = version
    with contextlib.suppress(FrameError):
        for piece in pieces:
            for frame in parser.feed(piece):
                assert frame.command


@given(body=st.binary(max_size=40) | JSON.map(msgspec.json.encode))
@example(b"[" * 100_000)
def test_any_answer_of_the_statistics_plugin_is_a_depth_or_none(body: bytes) -> None:
    depth = parse_depth(body)
    assert depth is None or type(depth.size) is int
