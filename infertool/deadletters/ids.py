"""By which ids an event is known: on its way through the consumer, and as a dead letter. One definition for both.

The event id is, in this order: the producer's header `event_id`, the producer's payload field `event_id`, the id before
a replay (header `original_message_id`), the broker's message id. The request id is the payload field `request_id`, else
the JMS correlation id.
"""

from __future__ import annotations

from typing import Any

from infertool.deadletters.letter import DeadLetter
from infertool.message import Message
from infertool.text.sanitize import printable


def envelope_id(message: Message) -> str:
    """Return the event id that the headers give."""
    headers = message.headers
    return printable(headers.get("event_id") or headers.get("original_message_id") or message.id)


def as_id(given: Any) -> str | None:
    """Return an id as text; None for what is no id: nothing, true, 1.5, a list."""
    # type() and not isinstance: it is the hot path, and True is no id.
    if type(given) is str:
        return given
    return str(given) if type(given) is int else None


def event_id(letter: DeadLetter) -> str:
    """Return the id that alerts, logs and dashboards showed of the letter."""
    headers = letter.message.headers
    given = letter.told_id or headers.get("event_id") or _of_payload(letter, "event_id")
    return printable(given or headers.get("original_message_id") or letter.original_id)


def request_id(letter: DeadLetter) -> str:
    """Return the request id that they showed, empty where there is none."""
    given = letter.request_id or _of_payload(letter, "request_id")
    return printable(given or letter.message.headers.get("correlation-id", ""))


def is_known_as(letter: DeadLetter, wanted: frozenset[str]) -> bool:
    """Return True if one of `wanted` is an id of the letter. Its body is read only where its headers do not decide."""
    headers = letter.message.headers
    known = (letter.message.id, letter.original_id, *(headers.get(name, "") for name in HEADERS))
    if not wanted.isdisjoint(map(printable, known)):
        return True
    return not wanted.isdisjoint((event_id(letter), request_id(letter)))


# Where a letter's headers tell its ids, under names that a selector can use.
HEADERS = ("event_id", "dlq_event_id", "dlq_request_id", "correlation-id")
_IN_SELECTORS = (
    "JMSMessageID", "original_message_id", "event_id", "dlq_event_id", "dlq_request_id", "JMSCorrelationID",
)  # fmt: skip


def selector(wanted: str) -> str:
    """Return the selector for letters whose headers know them as `wanted`; one in the body alone cannot be selected."""
    return " OR ".join(f"{name} = {quoted(wanted)}" for name in _IN_SELECTORS)


def quoted(text: str) -> str:
    """Return `text` as a selector's string."""
    return "'" + text.replace("'", "''") + "'"


def _of_payload(letter: DeadLetter, name: str) -> str:
    payload = letter.payload()
    return as_id(payload.get(name)) or "" if isinstance(payload, dict) else ""
