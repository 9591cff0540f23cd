from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from infertool import codec
from infertool.codec import MSGPACK
from infertool.consumer.attempt import Decoding, Encoded, Event, Failure
from infertool.consumer.documents import Documents, UnencodableError
from infertool.deadletters.ids import envelope_id
from infertool.models.port import Cached
from tests.support.messages import message

NOW = 1_764_000_000.5
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def decoded(body: bytes, **headers: str) -> Event:
    delivery = message(body, given=headers)
    event = Event(delivery, envelope_id(delivery))
    Decoding(10_000_000).decode(event)
    event.attempts = 1
    return event


def test_a_result_carries_ids_prediction_times_and_the_event() -> None:
    event = decoded(b'{"request_id": "r", "n": 1.50}', event_id="e", traceparent=TRACEPARENT)
    document = orjson.loads(Documents(include_payload=True, max_bytes=10_000).result(event, {"class": "A"}, 0.25, NOW))
    assert document.items() >= {
        "event_id": "e", "request_id": "r", "status": "SUCCESS", "prediction": {"class": "A"},
        "processing_ms": 250.0, "attempts": 1, "traceparent": TRACEPARENT,
        "original_payload": {"request_id": "r", "n": 1.5},
    }.items()  # fmt: skip
    assert document["completed_at"] == "2025-11-24T16:00:00.500Z"


def test_a_failure_says_where_why_and_how_often() -> None:
    event = decoded(b"not json", event_id="e")
    failure = Failure("decode", "NotJson", "the body is not JSON")
    document = orjson.loads(Documents(include_payload=True, max_bytes=10_000).failure(event, failure))
    assert document.items() >= {
        "status": "FAILED", "stage": "decode", "error_type": "NotJson", "error": "the body is not JSON",
        "attempts": 1, "original_payload": None, "original_text": "not json",
    }.items()  # fmt: skip


def test_the_payload_can_be_left_out() -> None:
    document = orjson.loads(Documents(include_payload=False, max_bytes=10_000).result(decoded(b'{"a":1}'), {}, 0, NOW))
    assert "original_payload" not in document


@pytest.mark.parametrize("scalar", [3, 0.5, "text", [1, 2], None, True])
def test_a_result_that_is_no_object_is_wrapped(scalar: object) -> None:
    document = orjson.loads(Documents(include_payload=False, max_bytes=10_000).result(decoded(b"{}"), scalar, 0, NOW))
    assert document["prediction"] == {"value": scalar}


@pytest.mark.parametrize("bad", [{1, 2}, object(), {"a": {1}}, {1: 2}, "\ud800"])
def test_a_result_json_cannot_hold_is_refused(bad: object) -> None:
    with pytest.raises(UnencodableError):
        Documents(include_payload=False, max_bytes=10_000).result(decoded(b"{}"), bad, 0, NOW)


def test_an_endless_result_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(UnencodableError):
        Documents(include_payload=False, max_bytes=10_000).result(decoded(b"{}"), endless, 0, NOW)


@pytest.mark.parametrize(
    ("event_bytes", "prediction_bytes", "truncated"),
    [(5000, 10, ["original_payload"]), (5000, 5000, ["original_payload", "prediction"])],
)
def test_an_oversized_result_is_cut_with_a_mark(event_bytes: int, prediction_bytes: int, truncated: list[str]) -> None:
    event = decoded(orjson.dumps({"request_id": "r", "text": "x" * event_bytes}))
    encoded = Documents(include_payload=True, max_bytes=2000).result(event, {"text": "y" * prediction_bytes}, 0, NOW)
    assert len(encoded) <= 2000
    document = orjson.loads(encoded)
    assert document["truncated"] == truncated
    assert document["request_id"] == "r"


def test_even_a_huge_id_does_not_pass_the_limit() -> None:
    event = decoded(orjson.dumps({"request_id": "r" * 100_000, "event_id": "e" * 100_000}))
    assert len(Documents(include_payload=True, max_bytes=4000).result(event, {}, 0, NOW)) <= 4000


def test_a_result_from_the_cache_is_marked() -> None:
    documents = Documents(include_payload=False, max_bytes=10_000)
    event = decoded(b"{}")
    cached = orjson.loads(documents.result(event, Cached({"class": "A"}), 0.0, NOW))
    assert (cached["prediction"], cached["cached"]) == ({"class": "A"}, True)
    assert "cached" not in orjson.loads(documents.result(event, {"class": "A"}, 0.0, NOW))


def msgpack_event(payload: object, **headers: str) -> Event:
    return decoded(MSGPACK.encode(payload), **{"content-type": "application/msgpack"}, **headers)


def test_what_comes_in_msgpack_is_published_as_json() -> None:
    event = msgpack_event({1: b"\x00\xff", "at": datetime(2026, 1, 2, tzinfo=UTC)}, event_id="e")
    event.payload["changed"] = "by the model"
    document = orjson.loads(Documents(include_payload=True, max_bytes=10_000).result(event, {2: b"\x01"}, 0.1, NOW))
    assert document["original_payload"] == {"1": "base64:AP8=", "at": "2026-01-02T00:00:00+00:00"}
    assert document["prediction"] == {"2": "base64:AQ=="}


def test_a_packed_event_is_published_unpacked() -> None:
    event = decoded(codec.packed(b'{"n": 1.50}', "gzip"), **{"content-encoding": "gzip"})
    document = Documents(include_payload=True, max_bytes=10_000).result(event, {}, 0.1, NOW)
    assert b'"original_payload":{"n": 1.50}' in document


def test_deep_msgpack_is_left_out() -> None:
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    event = msgpack_event({"deep": deep})
    document = orjson.loads(Documents(include_payload=True, max_bytes=10_000).result(event, {"ok": True}, 0.1, NOW))
    assert (document["original_payload"], document["prediction"]) == (None, {"ok": True})


@pytest.mark.parametrize("result", [{"a": object()}, 1 << 70])
def test_a_result_that_no_document_holds_is_an_error_in_any_codec(result: object) -> None:
    documents = Documents(include_payload=True, max_bytes=10_000)
    for event in (msgpack_event({}), decoded(b"{}")):
        if isinstance(result, int):
            assert orjson.loads(documents.result(event, result, 0.1, NOW))["prediction"] is not None
        else:
            with pytest.raises(UnencodableError):
                documents.result(event, result, 0.1, NOW)


@pytest.mark.parametrize(("text", "is_object"), [(b'{"a":1}', True), (b'{"a":1}', False), (b"[1]", False)])
def test_a_result_that_is_json_already(text: bytes, is_object: bool) -> None:
    document = orjson.loads(
        Documents(include_payload=True, max_bytes=10_000).result(
            decoded(b"{}"), Cached(Encoded(text, is_object)), 0.1, NOW
        )
    )
    assert document["prediction"] == (orjson.loads(text) if is_object else {"value": orjson.loads(text)})
