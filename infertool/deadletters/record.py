"""What we write on a dead letter: our headers are JMS identifiers, so that selectors can use them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from infertool.brokers.stomp.messages import is_sendable
from infertool.deadletters import marks
from infertool.deadletters.letter import DeadLetter
from infertool.message import Message, Outgoing

# Clocks that differ by less are as good as the same.
NOTABLE_S = 5.0


def iso(seconds: float) -> str:
    """Return a wall-clock time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def start(now: float, seen: Iterable[DeadLetter]) -> tuple[float, float]:
    """Return when a run begins by the clock of those who wrote the letters, and how far that is ahead of ours.

    A letter that is among those `seen` at the start and died later than now shows that their clock is ahead. When the
    run begins by theirs is not known then, so no letter died after it: infinity.
    """
    newest = max((letter.failed_at for letter in seen if letter.failed_at is not None), default=now)
    return (now, 0.0) if newest <= now else (math.inf, newest - now)


# A stack trace is no use in a table.
ERROR_BYTES = 1024
# Ids, names and error types: nobody reads, or types, a longer one.
NAME_BYTES = 1024
# The lines of a traceback; each of their ends takes two bytes on the wire, and a header's line has at most 10 KiB.
TRACEBACK_BYTES = 4096

# The wire allows 1000 headers a frame, ours and the broker's included, and 10 KiB a header line.
MOST_USER_HEADERS = 900
LONGEST_LINE = 10_240

# What an event cannot do without when not all can be carried.
KEPT_FIRST = frozenset({"correlation-id", "reply-to", "type", "priority", "timestamp", "event_id", "traceparent"})

# ActiveMQ writes both when it dead-letters.
_BROKERS_MARKS = frozenset({"original-destination", "originalExpiration"})

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
    traceback: str = ""


def dead_letter(message: Message, cause: Cause, queue: str) -> Outgoing:
    """Return `message` as a dead letter for `queue`: body, type and the producer's headers as they came, ours added.

    Where it came from, and what else an earlier death or a replay wrote on it, stays. A header that cannot stand under
    its own name is kept under another (`marks`). A broker may deliver more than it takes: headers past the first 900,
    and those too long for the wire, cannot be carried. `dlq_headers_dropped` says how many those were.
    """
    past = marks.ours(message.headers)
    theirs = marks.producers(message.headers)
    if message.headers.get("destination", message.source) != message.source:
        theirs["destination"] = message.headers["destination"]  # a property, which hides the broker's own
    # It would make the dead letter expire, too.
    expires = theirs.pop("expires") if is_sendable("expires", theirs.get("expires", "")) else "0"
    headers = _carried(marks.of_letter(theirs))
    if len(headers) < len(theirs):
        headers["dlq_headers_dropped"] = str(len(theirs) - len(headers))
    headers |= _origin(message, past)
    if expires != "0":
        headers["original_expires"] = expires
    # A dead letter must survive a broker restart, whatever the producer thought of the event.
    if message.headers.get("persistent") != "true":
        headers["original_persistent"] = "false"
    headers |= _cause(cause)
    return Outgoing(destination=queue, body=message.body, kind=message.kind, headers=headers, persistent=True)


def comes_back(message: Message, queue: str) -> bool:
    """Return True if `message` is a dead letter that was not replayed, and dead-lettering it to `queue` were a loop."""
    if not marks.is_dead_letter(message.headers):
        return False
    return queue in {message.source, marks.ours(message.headers).get("original_destination")}


def _carried(headers: Mapping[str, str]) -> dict[str, str]:
    fitting = [(key, value) for key, value in headers.items() if fits(key, value)]
    if len(fitting) > MOST_USER_HEADERS:
        fitting.sort(key=lambda pair: pair[0] not in KEPT_FIRST)
    return dict(fitting[:MOST_USER_HEADERS])


def fits(key: str, value: str) -> bool:
    """Tell whether a header's line is short enough for the wire, escapes included."""
    if 4 * (len(key) + len(value)) < LONGEST_LINE:  # no character takes more than four bytes
        return True
    text = (key + value).encode("utf-8", "surrogateescape")
    return len(text) + sum(map(text.count, _ESCAPED)) < LONGEST_LINE  # less: there is a colon between the two


def _origin(message: Message, past: Mapping[str, str]) -> Mapping[str, str]:
    """Return where the event came from: what an earlier death said of it stays."""
    origin = {
        "original_destination": _brokers_origin(message.headers) or message.source,
        "original_message_id": message.id,
        "replay_count": "0",
        **{name: value for name, value in past.items() if name in marks.OF_LIFE},
    }
    return {name: cut(value, NAME_BYTES) for name, value in origin.items()}


def _brokers_origin(headers: Mapping[str, str]) -> str:
    """Return where the broker took it from when it dead-lettered it; a producer may send one of its marks alone."""
    return headers["original-destination"] if headers.keys() >= _BROKERS_MARKS else ""


def _cause(cause: Cause) -> Mapping[str, str]:
    ours = {
        marks.FORMAT: marks.WRITTEN,
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
    if cause.request_id:
        ours["dlq_request_id"] = cut(cause.request_id, NAME_BYTES)
    if cause.traceback:
        ours["dlq_traceback"] = cut(cause.traceback, TRACEBACK_BYTES)
    return ours


def cut(text: str, limit: int) -> str:
    """Return `text` cut to at most `limit` bytes of UTF-8, with an ellipsis where it was cut. NULs become U+2400."""
    clean = text.replace("\0", "\N{SYMBOL FOR NULL}")
    encoded = clean.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode("utf-8")
    return encoded[: limit - 3].decode("utf-8", "ignore") + "\N{HORIZONTAL ELLIPSIS}"
