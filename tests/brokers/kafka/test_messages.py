"""Messages between Kafka's records and ours: what comes goes out the same."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from infertool.brokers.kafka.messages import KafkaMessage, to_message, to_messages, to_record
from infertool.errors import RefusedError
from infertool.message import BodyKind, Message, Outgoing, Properties

_Pairs = list[tuple[str, bytes | None]]


@dataclass
class _Record:
    """What confluent-kafka gives, as far as it is read."""

    body: bytes | None = b"{}"
    name: bytes | None = None
    pairs: _Pairs | Exception | None = field(default_factory=list)
    time: tuple[int, int] = (1, 1_700_000_000_000)

    def topic(self) -> str:
        return "events"

    def offset(self) -> int:
        return 7

    def value(self) -> bytes | None:
        return self.body

    def key(self) -> bytes | None:
        return self.name

    def headers(self) -> _Pairs | None:
        if isinstance(self.pairs, Exception):
            raise self.pairs
        return self.pairs or None

    def timestamp(self) -> tuple[int, int]:
        return self.time


def _read(record: _Record) -> KafkaMessage:
    return to_message(record, partition="events/3", epoch=2, redelivered=False)


class _Anew(_Record):
    """Makes new objects in each call, as confluent-kafka does."""

    def value(self) -> bytes:
        return bytes(bytearray(self.body or b""))

    def headers(self) -> _Pairs:
        return [(name, bytes(bytearray(value or b""))) for name, value in super().headers() or ()]


@pytest.mark.parametrize(("body", "value"), [(15, 0), (15, 800), (2000, 50), (0, 5000)])
def test_what_a_message_takes_of_memory_is_known(body: int, value: int) -> None:
    pairs: _Pairs = [("name", bytes(value))] if value else []
    records: list[_Record] = [_Anew(bytes(body), b"%d" % number, pairs) for number in range(2000)]
    tracemalloc.start()
    try:
        kept = _messages(records)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    told = sum(message.memory for message in kept)
    assert taken / 1.5 < told < taken * 1.5


def _messages(records: list[_Record]) -> list[KafkaMessage]:
    return to_messages(records, range(len(records)), partition="events/3", epoch=2, before=0)


_NAMES = st.sampled_from([
    "a", "b", "é", "", "content-type", "content-encoding", "type", "message-id", "kafka_correlationId",
    "kafka_replyTopic", "kafka_replyPartition", "kafka_key", "kafka_tombstone", "kafka_headers", "kafka_types",
    "amq-msg-type", "dlq_id",
])  # fmt: skip
_VALUES = st.none() | st.binary(max_size=6) | st.sampled_from([
    b"text", b"bytes", b"application/json", b"true", b"\0\0\0\5", b"base64:AAEC", b"base64:?", b'{"a":"int"}',
    b'[["a",null]]', b"7", b"events", b"events/b", b"events/7", b"/7", b"events/07", b"\xff\xff\xff\xff",
])  # fmt: skip


_ODD = st.just(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"))
_RECORDS = st.builds(
    _Record, st.none() | st.binary(max_size=4), pairs=st.lists(st.tuples(_NAMES, _VALUES), max_size=3) | _ODD
)


@given(st.lists(_RECORDS, max_size=5))
def test_each_record_of_a_batch_is_read_as_one_alone(records: list[_Record]) -> None:
    """One with odd headers, or without a body, changes nothing of those beside it."""
    offsets = [7] * len(records)
    assert to_messages(records, offsets, partition="events/3", epoch=2, before=0) == [*map(_read, records)]


def _again(message: Message) -> Any:
    """Return the record that a message becomes when it is sent on, as a replay does."""
    sent = Outgoing("other", message.body, message.kind, message.headers, message.properties, message.types)
    return to_record(sent, "kafka://a")


@given(
    st.lists(st.tuples(_NAMES, _VALUES), max_size=8),
    st.none() | st.binary(max_size=4),
    st.none() | st.binary(max_size=8),
)
def test_what_comes_goes_out_the_same(pairs: _Pairs, key: bytes | None, body: bytes | None) -> None:
    sent = _again(_read(_Record(body, key, pairs)))
    assert (sent.key, sent.value, sent.headers) == (key, body, pairs)
    assert sent.timestamp_ms == 1_700_000_000_000


@given(
    st.text(max_size=9),
    st.none() | st.text(max_size=9) | st.from_regex(r"[a-z.]{0,9}(/[0-9]{0,12}){0,2}", fullmatch=True),
    st.text(max_size=9),
    st.sampled_from(BodyKind), st.sampled_from([b"", b"x", b"\xff"]),
)  # fmt: skip
def test_properties_and_typed_headers_come_back(
    correlation_id: str, reply_to: str | None, kind: str, body_kind: BodyKind, body: bytes
) -> None:
    headers = {"number": "7", "data": "AAE=", "none": "", "when": "2026-01-31T03:00:00Z", "text": "é"}
    types = {"number": "int", "data": "bytes", "none": "null", "when": "time"}
    known = Properties(
        correlation_id=correlation_id, reply_to=reply_to, content_type="", type=kind, message_id="m", timestamp_ms=5
    )
    record = to_record(Outgoing("t", body, body_kind, headers, known, types), "kafka://a")
    got = _read(_Record(record.value, record.key, record.headers, (1, 5)))
    assert (got.headers, dict(got.types), got.kind, got.body) == (headers, types, body_kind, body)
    assert got.properties == known
    assert got.correlation_id == correlation_id


def test_a_message_tells_where_it_comes_from() -> None:
    got = _read(_Record(None, b"\xff", [("a", b"1"), ("a", b"2"), ("b", None)], (0, -1)))
    assert (got.id, got.source, got.partition, got.epoch, got.token) == ("events/3/7", "events", "events/3", 2, "7")
    assert got.native == {"a": "1", "b": ""}
    assert got.headers == {
        "a": "1", "b": "", "kafka_key": "/w==", "kafka_tombstone": "true",
        "kafka_headers": '[["a","1"],["a","2"],["b",null]]',
    }  # fmt: skip
    assert got.types == {"b": "null", "kafka_key": "bytes", "kafka_tombstone": "bool", "kafka_headers": "json"}
    assert got.properties.timestamp_ms is None


def test_a_changed_header_goes_out_once_in_its_place_and_new_ones_follow() -> None:
    got = _read(_Record(pairs=[("a", b"1"), ("b", b"2"), ("a", b"3"), ("gone", b"4")]))
    headers = {**got.headers, "a": "9", "new": "5"}
    del headers["gone"]
    record = to_record(Outgoing("t", b"", headers=headers, types=got.types), "kafka://a")
    assert record.headers == [("a", b"9"), ("b", b"2"), ("new", b"5")]


def test_names_that_are_no_text_leave_the_event_without_headers() -> None:
    fault = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    got = _read(_Record(b"body", b"key", fault))
    assert (got.body, got.headers) == (b"body", {"kafka_key": "key"})


@pytest.mark.parametrize(
    ("name", "text", "tag"),
    [
        ("kafka_headers", "no JSON", "json"), ("kafka_headers", "[[1,2]]", "json"), ("kafka_key", "?", "bytes"),
        ("n", "x", "int"),
    ],
)  # fmt: skip
def test_headers_that_are_not_of_their_types_are_refused(name: str, text: str, tag: str) -> None:
    with pytest.raises(RefusedError, match="cannot be sent"):
        to_record(Outgoing("t", b"", headers={name: text}, types={name: tag}), "kafka://a")
