from __future__ import annotations

import json
from pathlib import Path

import msgpack
import orjson
import pytest

from infertool import codec
from infertool.codec import JSON, MSGPACK, Codec
from infertool.consumer.attempt import Attempts, Decoding, Event, Preparation
from infertool.deadletters.ids import envelope_id
from infertool.text.sanitize import printable
from tests.support.messages import message

BROKEN = Path(__file__).parents[2] / "fixtures" / "broken"


def event_of(body: bytes, **headers: str) -> Event:
    delivery = message(body, given=headers)
    return Event(delivery, envelope_id(delivery))


def failure_type(body: bytes, limit: int = 1_000_000) -> str:
    failure = Decoding(limit).decode(event_of(body))
    assert failure is not None
    assert failure.stage == "decode"
    assert not failure.retryable
    return failure.error_type


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (b"", "EmptyBody"),
        (b"\xff\xfe{}", "NotUtf8"),
        (b'{"a": "caf\xe9"}', "NotUtf8"),
        (b"hello", "NotJson"),
        (b'{"a": 1', "NotJson"),
        (b'{"a": NaN}', "NotJson"),
        (b'{"a": 1}\0', "NotJson"),
        (b'{"a": "\0"}', "NotJson"),
        (b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "NotJson"),
        (b"[" * 10_000 + b"]" * 10_000, "NotJson"),
        (b"[1, 2]", "NotAnObject"),
        (b'"text"', "NotAnObject"),
        (b"12.5", "NotAnObject"),
        (b"true", "NotAnObject"),
        (b"null", "NotAnObject"),
    ],
)
def test_poison_is_named(body: bytes, error_type: str) -> None:
    assert failure_type(body) == error_type


def test_a_body_over_the_limit_is_not_decoded() -> None:
    assert failure_type(b"\xff" * 11, limit=10) == "TooLarge"


def test_an_object_is_decoded_and_identified() -> None:
    event = event_of(b'{"request_id": "r-1", "event_id": "e-1", "x": [1]}')
    assert Decoding(1000).decode(event) is None
    assert (event.event_id, event.request_id, event.payload["x"]) == ("e-1", "r-1", [1])


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"event_id": "head"}, {"event_id": "body"}, "head"),
        ({}, {"event_id": "body"}, "body"),
        ({}, {"event_id": 7}, "7"),
        ({"original_message_id": "before"}, {"event_id": ""}, "before"),
        ({"original_message_id": "before"}, {"event_id": ["no"]}, "before"),
        ({"original_message_id": "before"}, {"event_id": True}, "before"),
        ({"original_message_id": "before"}, {"event_id": 1.5}, "before"),
        ({"event_id": ""}, {"event_id": "body"}, "body"),
        ({}, {}, "ID:own"),
    ],
)
def test_the_event_id_is_stable(headers: dict[str, str], body: dict[str, object], expected: str) -> None:
    delivery = message(json.dumps(body).encode(), message_id="ID:own", given=headers)
    event = Event(delivery, envelope_id(delivery))
    Decoding(1000).decode(event)
    assert event.event_id == expected


@pytest.mark.parametrize(
    ("headers", "given", "expected"),
    [
        ({}, "r-1", "r-1"),
        ({}, 7, "7"),
        ({"correlation-id": "c-1"}, None, "c-1"),
        ({"correlation-id": "c-1"}, True, "c-1"),
        ({}, {"r": 1}, None),
    ],
)
def test_the_request_id(headers: dict[str, str], given: object, expected: str | None) -> None:
    event = event_of(json.dumps({"request_id": given}).encode(), **headers)
    Decoding(1000).decode(event)
    assert event.request_id == expected


def test_ids_from_bytes_that_were_not_utf8_can_be_written_as_json() -> None:
    event = event_of(b"{}", event_id=b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert event.event_id == "caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "é\udcc3"])
def test_text_with_surrogates_can_be_written_as_json(text: str) -> None:
    orjson.dumps(printable(text))


def test_every_broken_fixture_is_judged_as_its_index_says() -> None:
    index = json.loads((BROKEN / "index.json").read_text())
    assert index
    for name, entry in index.items():
        poison = entry["poison"] if isinstance(entry, dict) else entry
        failure = Decoding(20_000_000).decode(event_of((BROKEN / name).read_bytes()))
        assert (failure is not None) == poison, name


def event_in(body: bytes, content_type: str, encoding: str = "") -> Event:
    return event_of(body, **{"content-type": content_type}, **({"content-encoding": encoding} if encoding else {}))


def test_the_content_type_chooses_the_codec_before_the_setting() -> None:
    packed = msgpack.packb({"event_id": "e", 1: b"\xff"})
    for body, content_type, default in (
        (packed, "application/msgpack", JSON),
        (packed, "application/octet-stream", MSGPACK),
        (b'{"event_id": "e"}', "application/json; charset=utf-8", MSGPACK),
        (b'{"event_id": "e"}', "text/plain", JSON),
    ):
        event = event_in(body, content_type)
        assert Decoding(1000, default).decode(event) is None
        assert event.event_id == "e"
        assert event.codec is (MSGPACK if body is packed else JSON)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("used", [JSON, MSGPACK], ids=lambda used: used.name)
def test_a_packed_body_is_unpacked(encoding: str, used: Codec) -> None:
    event = event_in(codec.packed(used.encode({"a": [1]}), encoding), used.content_type, encoding)
    assert Decoding(1000).decode(event) is None
    assert event.payload == {"a": [1]}
    assert event.body == used.encode({"a": [1]})


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "error_type"),
    [
        (b"{}", "application/msgpack", "", "NotMsgpack"),
        (b"\x81\xa1a", "application/msgpack", "", "NotMsgpack"),
        (b"\xd4\x05a", "application/msgpack", "", "UnknownExtension"),
        (msgpack.packb([1]), "application/msgpack", "", "NotAnObject"),
        (b"{}", "application/json", "gzip", "NotGzip"),
        (b"{}", "application/json", "zstd", "NotZstd"),
        (codec.packed(b"{broken", "gzip"), "application/json", "gzip", "NotJson"),
        (codec.packed(bytes(2_000_000), "gzip"), "application/json", "gzip", "TooLarge"),
        (codec.packed(bytes(2_000_000), "zstd"), "application/msgpack", "zstd", "TooLarge"),
    ],
)
def test_poison_of_other_codecs_is_named(body: bytes, content_type: str, encoding: str, error_type: str) -> None:
    failure = Decoding(1_000_000).decode(event_in(body, content_type, encoding))
    assert failure is not None
    assert (failure.stage, failure.error_type) == ("decode", error_type)


def test_a_character_set_as_content_encoding_changes_nothing() -> None:
    assert Decoding(1000).decode(event_in(b'{"a": 1}', "application/json", "UTF-8")) is None


@pytest.mark.parametrize("value", [None, 0, "", [], [1], "text", False, 1.5])
def test_any_value_can_be_a_payload_where_that_is_asked_for(value: object) -> None:
    for used in (JSON, MSGPACK):
        event = event_in(used.encode(value), used.content_type)
        assert Decoding(1000, any_value=True).decode(event) is None
        assert event.payload == value
        assert Attempts(lambda payload: [payload], Preparation(Decoding(1000, any_value=True), lambda _: None))(
            event
        ).prediction == [value]
