"""What we write on a dead letter: our headers are identifiers, so that selectors can use them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from infertool.brokers import header_types
from infertool.brokers import headers as textform
from infertool.brokers.port import Conventions
from infertool.deadletters import marks
from infertool.deadletters.letters import DeadLetter
from infertool.message import BrokerDeath, Message, Outgoing, Properties

# Clocks that differ by less are as good as the same.
NOTABLE_S = 5.0


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
# The lines of a traceback; each of their ends may take two bytes on the wire.
TRACEBACK_BYTES = 4096

_ID_BYTES = 16

# Of the headers that a message may have, these are left for ours, on this letter and on its replays.
_FOR_OURS = 90
# A letter that is dead-lettered so often in a row goes round between consumers.
MOST_DEATHS: Final = 10
_DEATHS: Final = re.compile(r"[1-9][0-9]{0,3}")

# What an event cannot do without when not all can be carried.
KEPT_FIRST = frozenset({"event_id", "traceparent"})


@dataclass(frozen=True, slots=True)
class Cause:
    """Which event became a dead letter, and why. Times are ISO 8601 in UTC; a `request_id` is empty when there is none.

    The ids are those of the event's alert, logs and dashboards, wherever they came from (docs/guarantees.md).
    `traceparent` is that of its try; empty if the event belongs to no trace.
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
    traceparent: str = ""


def dlq_id(message: Message) -> str:
    """Return an id for the dead letter of `message`: the same for each delivery of that, another for each replay."""
    source, message_id, sent, body = message.identity
    parts = [source, message_id, sent, body if isinstance(body, bytes) else str(body)]
    # A producer's message id stays over replays, and some brokers have no time of their own.
    if replay_id := marks.ours(message.headers).get("replay_id"):
        parts.append(replay_id)
    digest = blake2b(digest_size=_ID_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def dead_letter(
    message: Message, cause: Cause, queue: str, conventions: Conventions, *, atomic: bool = True
) -> Outgoing:
    """Return `message` as a dead letter for `queue`: body, kind and the producer's headers as they came, ours added.

    Where it came from, and what else an earlier death or a replay wrote on it, stays. A header that cannot stand under
    its own name is kept under another (`marks`). A broker may deliver more than it takes: headers past its limit, and
    those too long for it, cannot be carried. `dlq_headers_dropped` says how many those were. A letter that is not moved
    in one `atomic` step gets a `dlq_id`.
    """
    came, known = header_types.of(message), message.properties
    past, theirs = marks.ours(came), marks.producers(came)
    # An expiry would make the dead letter expire, too. And it must survive a broker restart, whatever the event did.
    properties = msgspec.structs.replace(known, expires_ms=None, ttl_ms=None, persistent=True, delivery_count=None)
    too_long = _too_long(properties, conventions)
    properties = textform.without(properties, too_long)
    room = conventions.max_headers - _FOR_OURS - len(textform.property_texts(properties)) + 1
    headers = _carried(marks.of_letter(theirs, conventions), room, conventions)
    if dropped := len(theirs) - len(headers) + len(too_long):
        headers["dlq_headers_dropped"] = str(dropped)
    headers |= _origin(message, past, cause)
    if known.timestamp_ms is not None:
        # Some brokers keep whole seconds of it, others give the letter a time of their own.
        headers.setdefault(marks.TIMESTAMP, str(known.timestamp_ms))
        if conventions.ages_by_time:
            properties = msgspec.structs.replace(properties, timestamp_ms=None)
    if known.expires_ms is not None:
        headers["original_expires"] = str(known.expires_ms)
    if known.ttl_ms is not None:
        headers["original_ttl"] = str(known.ttl_ms)
    if not known.persistent:
        headers["original_persistent"] = "false"
    headers |= _cause(cause)
    if deaths := _deaths(message):
        headers["dlq_deaths"] = str(deaths + 1)
    if not atomic:
        headers[marks.DLQ_ID] = dlq_id(message)
    return Outgoing(queue, message.body, message.kind, headers, properties, header_types.tags(headers))


def _too_long(properties: Properties, conventions: Conventions) -> frozenset[str]:
    texts = textform.property_texts(properties)
    return frozenset(name for name, value in texts.items() if not conventions.fits(name, value))


def comes_back(message: Message, queue: str) -> bool:
    """Return True if `message` is a dead letter that was not replayed, and dead-lettering it to `queue` were a loop.

    It is one where the letter lies or comes from there, and after `MOST_DEATHS` deaths in a row, wherever those were.
    """
    headers = message.headers
    if not marks.is_dead_letter(headers):
        return False
    return queue in {message.source, marks.ours(headers).get("original_destination")} or _deaths(message) >= MOST_DEATHS


def _deaths(message: Message) -> int:
    """Return how often a message was dead-lettered since it was sent or replayed."""
    if not marks.is_dead_letter(message.headers):
        return 0
    told = marks.ours(message.headers).get("dlq_deaths", "")
    return int(told) if _DEATHS.fullmatch(told) else 1


def _carried(headers: Mapping[str, str], room: int, conventions: Conventions) -> dict[str, str]:
    fitting = [(key, value) for key, value in headers.items() if conventions.fits(key, value)]
    if len(fitting) > room:
        fitting.sort(key=lambda pair: pair[0] not in KEPT_FIRST)
    return dict(fitting[:room])


def _origin(message: Message, past: Mapping[str, str], cause: Cause) -> Mapping[str, str]:
    """Return where the event came from: what an earlier death said of it stays."""
    origin = {
        "original_destination": _brokers_origin(message.death) or message.source,
        "original_message_id": message.id,
        "replay_count": "0",
        **({"original_traceparent": cause.traceparent} if cause.traceparent else {}),
        **{name: value for name, value in past.items() if name in marks.OF_LIFE},
    }
    return {name: cut(value, NAME_BYTES) for name, value in origin.items()}


def _brokers_origin(death: BrokerDeath | None) -> str:
    """Return where the broker took the message from when it dead-lettered it; a producer may send some of its marks."""
    return death.origin if death and death.complete else ""


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
