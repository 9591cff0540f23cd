"""An event in a retry topic: what is written on it so that it stays the event that it was."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

import msgspec

from infertool.brokers import header_types
from infertool.brokers.headers import LONG
from infertool.deadletters.record import dlq_id
from infertool.message import Message, Outgoing, TypedMessage

# Milliseconds since the epoch, before which it is not to be tried.
DUE: Final = "infertool_retry_due"
# Where it came from first, and the broker's id that it had there.
ORIGIN, MESSAGE_ID = "infertool_retry_origin", "infertool_retry_message_id"
EVENT_ID: Final = "infertool_retry_event_id"
# Its own time: that of its record in a retry topic is when it came there, since retention goes by it.
TIMESTAMP: Final = "infertool_retry_timestamp"
ATTEMPTS, FIRST_FAILED_AT = "infertool_retry_attempts", "infertool_retry_first_failed_at"
# The same on two copies of one move: it is made of a send and an ack.
RETRY_ID: Final = "infertool_retry_id"
_OURS: Final = frozenset({DUE, ORIGIN, MESSAGE_ID, EVENT_ID, TIMESTAMP, ATTEMPTS, FIRST_FAILED_AT, RETRY_ID})
# What a producer wrote under one of these names.
_KEPT: Final = "infertool_retry_kept_"

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


def delayed(first: Message, past: Past, queue: str, due_ms: int) -> Outgoing:
    """Return an event, as it was before it came into retry topics, for one: with what it needs to stay the same."""
    known = first.properties
    came = header_types.of(first)
    headers = {(_KEPT + name if _is_ours(name) else name): value for name, value in came.items()} | {
        DUE: str(due_ms),
        ORIGIN: first.source,
        MESSAGE_ID: first.id,
        EVENT_ID: past.event_id,
        ATTEMPTS: str(past.attempts),
        FIRST_FAILED_AT: past.first_failed_at,
        RETRY_ID: dlq_id(first),
    }
    if known.timestamp_ms is not None:
        headers[TIMESTAMP] = str(known.timestamp_ms)
    properties = msgspec.structs.replace(known, timestamp_ms=None)
    return Outgoing(queue, first.body, first.kind, headers, properties, header_types.tags(headers))


def original(message: Message) -> Message:
    """Return an event of a retry topic as it was before; the delivery stays that of `message`.

    What another program sent to the retry topic is left as it is.
    """
    native, headers, types = message.native, message.headers, message.types
    if not (ORIGIN in native and MESSAGE_ID in native):
        return message
    stamp = headers.get(TIMESTAMP, "")
    theirs = {name.removeprefix(_KEPT): name for name in headers if name not in _OURS}
    return TypedMessage(
        id=headers[MESSAGE_ID],
        source=headers[ORIGIN],
        native={name: headers[here] for name, here in theirs.items()},
        body=message.body,
        kind=message.kind,
        redelivered=message.redelivered,
        epoch=message.epoch,
        token=message.token,
        hides_body=message.hides_body,
        partition=message.partition,
        known=msgspec.structs.replace(message.properties, timestamp_ms=int(stamp) if LONG.fullmatch(stamp) else None),
        header_types={name: types[here] for name, here in theirs.items() if here in types},
    )


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith(_KEPT)


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
