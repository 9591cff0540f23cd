"""An event in a retry topic: what is written on it so that it stays the event that it was."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from infertool.brokers import header_types
from infertool.deadletters.record import dlq_id
from infertool.message import Message, Outgoing, TypedMessage

# Milliseconds since the epoch, before which it is not to be tried.
DUE: Final = "infertool_retry_due"
# Where it came from first, and the broker's id that it had there.
ORIGIN, MESSAGE_ID = "infertool_retry_origin", "infertool_retry_message_id"
EVENT_ID: Final = "infertool_retry_event_id"
ATTEMPTS, FIRST_FAILED_AT = "infertool_retry_attempts", "infertool_retry_first_failed_at"
# The same on two copies of one move: it is made of a send and an ack.
RETRY_ID: Final = "infertool_retry_id"
_OURS: Final = frozenset({DUE, ORIGIN, MESSAGE_ID, EVENT_ID, ATTEMPTS, FIRST_FAILED_AT, RETRY_ID})

_NUMBER: Final = re.compile("[0-9]{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Delay:
    """A retry topic, whose events wait for `wait_s`, and the weight that it has beside other queues."""

    queue: str
    wait_s: float
    weight: float


@dataclass(frozen=True, slots=True)
class Past:
    """What happened to an event before: the number of its tries, and when the first failed (ISO 8601, or empty)."""

    event_id: str
    attempts: int
    first_failed_at: str


def delayed(message: Message, past: Past, queue: str, due_ms: int) -> Outgoing:
    """Return `message` for a retry topic: as it came, and what it needs to stay the same event."""
    first = original(message)
    headers = header_types.of(first) | {
        DUE: str(due_ms),
        ORIGIN: first.source,
        MESSAGE_ID: first.id,
        EVENT_ID: past.event_id,
        ATTEMPTS: str(past.attempts),
        FIRST_FAILED_AT: past.first_failed_at,
        RETRY_ID: dlq_id(first),
    }
    return Outgoing(queue, message.body, message.kind, headers, first.properties, header_types.tags(headers))


def is_delayed(message: Message) -> bool:
    """Return True for an event that comes from a retry topic."""
    native = message.native
    return ORIGIN in native and MESSAGE_ID in native


def original(message: Message) -> Message:
    """Return an event as it was before it came into retry topics; the delivery stays that of `message`."""
    if not is_delayed(message):
        return message
    headers = message.headers
    return TypedMessage(
        id=headers[MESSAGE_ID],
        source=headers[ORIGIN],
        native={name: value for name, value in headers.items() if name not in _OURS},
        body=message.body,
        kind=message.kind,
        redelivered=message.redelivered,
        epoch=message.epoch,
        token=message.token,
        hides_body=message.hides_body,
        partition=message.partition,
        known=message.properties,
        header_types={name: tag for name, tag in message.types.items() if name not in _OURS},
    )


def past(message: Message) -> Past:
    """Return what is written on an event of a retry topic; nothing where another program sent it there."""
    native = message.native
    known = native.get(ATTEMPTS) or ""
    attempts = int(known) if _NUMBER.fullmatch(known) else 0
    return Past(native.get(EVENT_ID) or "", attempts, native.get(FIRST_FAILED_AT) or "")


def due_s(message: Message) -> float:
    """Return when an event may be tried, in seconds since the epoch; 0 where nothing tells it."""
    try:
        seconds = float(message.native.get(DUE) or 0) / 1000
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
