from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infertool.brokers.amqp.conventions import CONVENTIONS as AMQP
from infertool.brokers.headers import text
from infertool.brokers.kafka.conventions import CONVENTIONS as KAFKA
from infertool.brokers.port import Conventions
from infertool.brokers.stomp.conventions import CONVENTIONS
from infertool.deadletters import record
from infertool.deadletters.record import ERROR_BYTES, Cause, cut
from infertool.message import BodyKind, Message, Outgoing, Properties, TypedMessage
from tests.support.messages import message

CAUSE = Cause(
    event_id="order-17", request_id="",
    stage="infer", error_type="ValueError", error="no such class", attempts=3, failed_at="2026-01-01T00:00:01.000Z",
    first_failed_at="2026-01-01T00:00:00.000Z", consumer="host:1", model="sim",
)  # fmt: skip


def dead_letter(message: Message, cause: Cause, queue: str) -> Outgoing:
    return record.dead_letter(message, cause, queue, CONVENTIONS)


def texts(sent: Outgoing) -> dict[str, str]:
    """Return what is sent in the text form, but for `persistent`."""
    return {name: value for name, value in text(sent).items() if name != "persistent"}


def test_body_type_and_user_headers_survive_and_ours_are_added() -> None:
    original = message(
        b"\x00\xff", message_id="ID:1", kind=BodyKind.BYTES, persistent="true", priority="9", tenant="acme",
        given={"correlation-id": "c", "reply-to": "/queue/r", "type": "order", "JMSXGroupID": "g"},
    )  # fmt: skip
    letter = dead_letter(original, CAUSE, "/queue/dead")
    assert (letter.destination, letter.body, letter.kind) == ("/queue/dead", b"\x00\xff", BodyKind.BYTES)
    assert letter.properties.persistent
    assert texts(letter) == {
        "priority": "9", "tenant": "acme", "correlation-id": "c", "reply-to": "/queue/r", "type": "order",
        "JMSXGroupID": "g", "original_destination": "/queue/in", "original_message_id": "ID:1", "replay_count": "0",
        "dlq_format": "infertool/1", "dlq_event_id": "order-17",
        "dlq_stage": "infer", "dlq_error_type": "ValueError", "dlq_error": "no such class", "dlq_attempts": "3",
        "dlq_failed_at": "2026-01-01T00:00:01.000Z", "dlq_first_failed_at": "2026-01-01T00:00:00.000Z",
        "dlq_consumer": "host:1", "dlq_model": "sim",
    }  # fmt: skip


def test_what_belongs_to_one_delivery_does_not_travel() -> None:
    original = message(
        b"{}", redelivered=True, expires="1700000000000", persistent="true", ack="a", subscription="s",
        given={"content-length": "2", "original-destination": "queue://x"},
    )  # fmt: skip
    headers = texts(dead_letter(original, CAUSE, "/queue/dead"))
    gone = {
        "message-id",
        "destination",
        "ack",
        "subscription",
        "content-length",
        "redelivered",
        "expires",
        "persistent",
    }
    assert not gone & headers.keys()
    assert "original-destination" not in headers
    assert headers["original_expires"] == "1700000000000"


def test_a_non_persistent_event_makes_a_persistent_dead_letter_that_says_so() -> None:
    letter = dead_letter(message(), CAUSE, "/queue/dead")
    assert letter.properties.persistent
    assert letter.headers["original_persistent"] == "false"


def test_the_identity_of_a_replayed_event_is_kept() -> None:
    replayed = message(original_message_id="ID:first", replay_count="2", replay_id="run-1")
    letter = dead_letter(replayed, CAUSE, "/queue/dead")
    assert letter.headers["original_message_id"] == "ID:first"
    assert letter.headers["replay_count"] == "2"


def test_the_ids_that_alerts_show_are_written() -> None:
    headers = dead_letter(message(event_id="of the header"), replace(CAUSE, request_id="r-1"), "/queue/dead").headers
    assert (headers["dlq_event_id"], headers["dlq_request_id"]) == ("order-17", "r-1")
    assert headers["event_id"] == "of the header"


LONG = ":\n\0\ud800" * 5000


@pytest.mark.parametrize("field", ["event_id", "request_id", "error_type", "error", "consumer", "model"])
def test_what_we_write_is_bounded_and_clean(field: str) -> None:
    too_long: dict[str, Any] = {field: LONG}
    headers = dead_letter(message(), replace(CAUSE, **too_long), "/queue/dead").headers
    assert all(CONVENTIONS.fits(key, value) for key, value in headers.items())
    assert "\0" not in "".join(headers.values())
    "".join(headers.values()).encode()


def test_more_headers_than_a_frame_holds_are_counted() -> None:
    letter = dead_letter(message(b"{}", given={f"h{n}": "x" for n in range(990)}), CAUSE, "/queue/dead")
    assert letter.headers["dlq_headers_dropped"] == "90"
    assert len(letter.headers) < 950


def test_what_an_event_needs_is_not_among_the_dropped() -> None:
    needed = {"priority": "9", "correlation-id": "c", "event_id": "e"}
    letter = dead_letter(message(b"{}", given={**{f"h{n}": "x" for n in range(990)}, **needed}), CAUSE, "/queue/dead")
    assert texts(letter).items() >= needed.items()


LONGEST = 10_240 - len("h:")


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("x" * LONGEST, True), ("x" * (LONGEST + 1), False), ("é" * (LONGEST // 2), True), ("é" * LONGEST, False),
        (":" * (LONGEST // 2), True), (":" * LONGEST, False), ("\udcff" * LONGEST, True), ("\n\r\\" * LONGEST, False),
    ],
)  # fmt: skip
def test_a_header_too_long_for_the_wire_is_counted(value: str, fits: bool) -> None:
    headers = dead_letter(message(h=value), CAUSE, "/queue/dead").headers
    assert headers.get("h") == (value if fits else None)
    assert headers.get("dlq_headers_dropped") == (None if fits else "1")


def test_an_identity_too_long_for_the_wire_is_not_taken_over() -> None:
    headers = dead_letter(message(message_id="ID:1", original_message_id=":" * LONGEST), CAUSE, "/queue/dead").headers
    assert headers["original_message_id"] == "ID:1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("short", "short"), ("a\0b", "a\N{SYMBOL FOR NULL}b"), ("\ud800", "?")],
)
def test_short_errors_stay(text: str, expected: str) -> None:
    assert cut(text, ERROR_BYTES) == expected


@pytest.mark.parametrize("char", ["x", "é", "\N{GRINNING FACE}"])
def test_long_errors_are_cut_at_a_character(char: str) -> None:
    shortened = cut(char * 5000, ERROR_BYTES)
    assert ERROR_BYTES - 4 <= len(shortened.encode()) <= ERROR_BYTES
    assert shortened.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert set(shortened[:-1]) == {char}


@pytest.mark.parametrize(("conventions", "kept"), [(KAFKA, None), (AMQP, 1_700_000_000_000)], ids=["kafka", "amqp"])
def test_a_dead_letter_has_a_time_of_its_own_where_messages_are_deleted_by_their_times(
    conventions: Conventions, kept: int | None
) -> None:
    sent = Properties(timestamp_ms=1_700_000_000_000)
    event = TypedMessage("id", "events", {}, b"", BodyKind.TEXT, False, 1, "", known=sent)
    letter = record.dead_letter(event, CAUSE, "events.dlq", conventions, atomic=False)
    assert letter.properties.timestamp_ms == kept
    assert letter.headers["original_timestamp"] == "1700000000000"
