"""What we write on a dead letter: our headers are JMS identifiers, so that selectors can use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infertool.message import Message, Outgoing

# A stack trace is no use in a table.
ERROR_BYTES = 1024
# Ids, names and error types: nobody reads, or types, a longer one.
NAME_BYTES = 1024

# The wire allows 1000 headers a frame, ours and the broker's included, and 10 KiB a header line.
MOST_USER_HEADERS = 900
LONGEST_LINE = 10_240

# What the broker says of one delivery, or would act upon again: it must not travel into the dead letter.
# `expires` would make the dead letter expire, too; the original is kept as `original_expires`.
DELIVERY_HEADERS = frozenset({
    "message-id", "subscription", "ack", "destination", "content-length", "content-encoding", "redelivered",
    "transaction", "receipt", "expires", "persistent", "amq-msg-type", "original-destination",
})  # fmt: skip

# What an event cannot do without when not all can be carried.
KEPT_FIRST = frozenset({
    "correlation-id", "reply-to", "type", "priority", "timestamp", "event_id", "original_message_id", "replay_count",
    "traceparent",
})  # fmt: skip

# Each of these takes a byte more on the wire.
_ESCAPED = (b":", b"\\", b"\n", b"\r")


@dataclass(frozen=True, slots=True)
class Cause:
    """Which event became a dead letter, and why. Times are ISO 8601 in UTC; a `request_id` is empty when there is none.

    The ids are those of the event's alert, logs and dashboards, wherever they came from (docs/guarantees.md).
    """

    event_id: str
    request_id: str

    stage: str
    error_type: str
    error: str
    attempts: int
    failed_at: str
    first_failed_at: str
    consumer: str
    model: str


def dead_letter(message: Message, cause: Cause, queue: str) -> Outgoing:
    """Return `message` as a dead letter for `queue`: body, type and the user's headers as they came, ours added.

    A broker may deliver more than it takes: headers past the first 900, and those too long for the wire, cannot be
    carried. `dlq_headers_dropped` says how many those were.
    """
    users = [(key, value) for key, value in message.headers.items() if key not in DELIVERY_HEADERS]
    fitting = [(key, value) for key, value in users if fits(key, value)]
    if len(fitting) > MOST_USER_HEADERS:
        fitting.sort(key=lambda pair: pair[0] not in KEPT_FIRST)
    headers = dict(fitting[:MOST_USER_HEADERS])
    if len(headers) < len(users):
        headers["dlq_headers_dropped"] = str(len(users) - len(headers))
    headers |= _origin(message, headers)
    headers |= _cause(cause)
    persistent = message.headers.get("persistent") == "true"
    # A dead letter must survive a broker restart, whatever the producer thought of the event.
    if not persistent:
        headers["original_persistent"] = "false"
    return Outgoing(destination=queue, body=message.body, kind=message.kind, headers=headers, persistent=True)


def fits(key: str, value: str) -> bool:
    """Tell whether a header's line is short enough for the wire, escapes included."""
    if 4 * (len(key) + len(value)) < LONGEST_LINE:  # no character takes more than four bytes
        return True
    text = (key + value).encode("utf-8", "surrogateescape")
    return len(text) + sum(map(text.count, _ESCAPED)) < LONGEST_LINE  # less: there is a colon between the two


def _origin(message: Message, carried: Mapping[str, str]) -> Mapping[str, str]:
    origin = {
        "original_destination": message.headers.get("destination", message.source),
        "original_message_id": carried.get("original_message_id", message.id),
        "replay_count": carried.get("replay_count", "0"),
    }
    expires = message.headers.get("expires", "0")
    return origin if expires == "0" else origin | {"original_expires": expires}


def _cause(cause: Cause) -> Mapping[str, str]:
    ours = {
        "dlq_event_id": cut(cause.event_id, NAME_BYTES),
        "dlq_stage": cause.stage,
        "dlq_error_type": cut(cause.error_type, NAME_BYTES),
        "dlq_error": cut(cause.error, ERROR_BYTES),
        "dlq_attempts": str(cause.attempts),
        "dlq_failed_at": cause.failed_at,
        "dlq_first_failed_at": cause.first_failed_at,
        "dlq_consumer": cut(cause.consumer, NAME_BYTES),
        "dlq_model": cut(cause.model, NAME_BYTES),
    }
    return ours | {"dlq_request_id": cut(cause.request_id, NAME_BYTES)} if cause.request_id else ours


def cut(text: str, limit: int) -> str:
    """Return `text` cut to at most `limit` bytes of UTF-8, with an ellipsis where it was cut. NULs become U+2400."""
    clean = text.replace("\0", "\N{SYMBOL FOR NULL}")
    encoded = clean.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode("utf-8")
    return encoded[: limit - 3].decode("utf-8", "ignore") + "\N{HORIZONTAL ELLIPSIS}"
