"""By which ids an event is known: on its way through the consumer, and as a dead letter. One definition for both.

The event id is, in this order: the producer's header `event_id`, the producer's payload field `event_id`, the id before
a replay (header `original_message_id`), the broker's message id. The request id is the payload field `request_id`, else
the correlation id.
"""

from __future__ import annotations

from typing import Any

from infertool.brokers.port import Match
from infertool.deadletters.letters import DeadLetter
from infertool.message import Message
from infertool.text.sanitize import printable


def envelope_id(message: Message) -> str:
    """Return the event id that the headers give."""
    native = message.native
    return printable(native.get("event_id") or native.get("original_message_id") or message.id)


def as_id(given: Any) -> str | None:
    """Return an id as text; None for what is no id: nothing, true, 1.5, a list."""
    # type() and not isinstance: it is the hot path, and True is no id.
    if type(given) is str:
        return given
    return str(given) if type(given) is int else None


def event_id(letter: DeadLetter) -> str:
    """Return the id that alerts, logs and dashboards showed of the letter."""
    message = letter.message
    given = letter.told_id or message.native.get("event_id") or _of_payload(letter, "event_id")
    return printable(given or message.native.get("original_message_id") or letter.original_id)


def request_id(letter: DeadLetter) -> str:
    """Return the request id that they showed, empty where there is none."""
    given = letter.request_id or _of_payload(letter, "request_id")
    return printable(given or letter.message.correlation_id or "")


def is_known_as(letter: DeadLetter, wanted: frozenset[str]) -> bool:
    """Return True if one of `wanted` is an id of the letter. Its body is read only where its headers do not decide."""
    message = letter.message
    stated = (message.correlation_id, *map(message.native.get, HEADERS))
    known = (message.id, letter.original_id, *(each or "" for each in stated))
    if not wanted.isdisjoint(map(printable, known)):
        return True
    return not wanted.isdisjoint((event_id(letter), request_id(letter)))


# Where a letter's headers tell its ids, under names that a selector can use.
HEADERS = ("event_id", "dlq_event_id", "dlq_request_id")


def match(wanted: str) -> Match:
    """Return what selects letters that have `wanted` as an id beside the body; an id in the body cannot be selected."""
    names = ("original_message_id", *HEADERS)
    return Match(ids=(wanted,), correlation_id=wanted, headers=dict.fromkeys(names, wanted))


def _of_payload(letter: DeadLetter, name: str) -> str:
    payload = letter.payload()
    return as_id(payload.get(name)) or "" if isinstance(payload, dict) else ""
