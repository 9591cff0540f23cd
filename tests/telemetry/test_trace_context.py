"""`traceparent`: what is one, where an event brings it, and where it goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infertool import brokers
from infertool.consumer.attempt import Decoding, Event, Failure
from infertool.consumer.documents import Documents
from infertool.consumer.requests import Answers
from infertool.deadletters.ids import envelope_id
from infertool.deadletters.record import Cause, dead_letter
from infertool.telemetry.trace_context import TraceContext, new, parse
from tests.support.messages import message
from tests.support.present import present

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
CONVENTIONS = brokers.conventions("stomp://localhost")
OTHER = f"00-{TRACE}-b7ad6b7169203331-00"

NO_TRACEPARENTS = [
    f"01-{TRACE}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
    GOOD.upper(), f" {GOOD}", f"{GOOD}\n", f"{GOOD}-01", f"00-{TRACE}-{SPAN}", f"00_{TRACE}-{SPAN}-01",
    GOOD.replace("4", "\N{FULLWIDTH DIGIT FOUR}"), "x", "0" * 1_000_000, GOOD + "0" * 1_000_000,
    7, True, [GOOD], {"traceparent": GOOD}, "\ud800",
]  # fmt: skip


def decoded(body: bytes, ignored: list[str], **headers: Any) -> Event:
    delivery = message(body, **headers)
    event = Event(delivery, envelope_id(delivery))
    decoding = Decoding(10_000_000, on_invalid_trace=lambda: ignored.append("ignored"))
    for _ in range(2):  # a second try finds the same
        decoding.decode(event)
    return event


def test_a_traceparent_is_read_and_written() -> None:
    assert parse(GOOD) == TraceContext(TRACE, SPAN, 1)
    assert str(parse(GOOD)) == GOOD
    assert [present(parse(GOOD)).sampled, present(parse(OTHER)).sampled] == [True, False]
    made = new(sampled=False)
    assert parse(str(made)) == made
    assert not made.sampled
    assert new().trace_id != new().trace_id


@pytest.mark.parametrize("value", NO_TRACEPARENTS, ids=lambda value: repr(value)[:70])
def test_what_is_no_traceparent_is_ignored_and_counted_and_the_event_goes_on(value: object) -> None:
    assert parse(value) is None
    ignored: list[str] = []
    body = json.dumps({"a": 1, "traceparent": value}).encode()
    event = decoded(body, ignored)
    if value != "\ud800":  # which is no JSON for us, whatever the field
        assert event.payload["a"] == 1
        assert ignored == ["ignored"]
    if isinstance(value, str):
        in_header = decoded(b'{"a":1}', ignored := [], traceparent=value)
        assert in_header.payload == {"a": 1}
        assert (in_header.traceparent, ignored) == ("", ["ignored"])
    assert event.traceparent == ""
    assert "traceparent" not in json.loads(Documents(include_payload=False, max_bytes=9999).result(event, {}, 0, 0))


@pytest.mark.parametrize(
    ("body", "headers", "found"),
    [
        (b"{}", {}, ""),
        (b"{}", {"traceparent": GOOD}, GOOD),
        (json.dumps({"traceparent": GOOD}).encode(), {}, GOOD),
        (json.dumps({"traceparent": OTHER}).encode(), {"traceparent": GOOD}, GOOD),
        (json.dumps({"traceparent": GOOD}).encode(), {"traceparent": "junk"}, GOOD),
        (json.dumps({"traceparent": None}).encode(), {}, ""),
        (b"no JSON", {"traceparent": GOOD}, GOOD),
    ],
)
def test_the_trace_is_in_every_publication_and_dead_letter(body: bytes, headers: dict[str, str], found: str) -> None:
    event = decoded(body, [], reply_to="/queue/r", **headers)
    failure = Failure("infer", "E", "x")
    documents = Documents(include_payload=False, max_bytes=9999)
    alert = documents.failure(event, failure)
    shown = [documents.result(event, {}, 0.0, 0.0), alert, documents.minimal(event, failure)]
    assert [json.loads(each).get("traceparent", "") for each in shown] == [found] * 3
    answers = Answers("result")
    for reply in (answers.result(event, {}, 0.0, b"{}"), answers.failure(event, failure, alert)):
        if reply is not None:
            assert reply.headers.get("traceparent", "") == found
    cause = Cause("e", "", "infer", "E", "x", 1, "t", "t", "c", "m", traceparent=event.traceparent)
    letter = dead_letter(event.message, cause, "/queue/dlq", CONVENTIONS)
    assert letter.headers.get("original_traceparent", "") == found
    assert letter.headers.get("traceparent") == headers.get("traceparent")
    again = Cause("e", "", "infer", "E", "x", 1, "t", "t", "c", "m", traceparent=OTHER)
    died: dict[str, Any] = dict(letter.headers)
    second = dead_letter(message(body, **died), again, "/queue/dlq", CONVENTIONS)
    assert second.headers["original_traceparent"] == (found or OTHER)
