"""A message in a dead-letter queue, read: where it came from, why it is there, since when.

Dead letters are written by infertool (`record.py`), by the broker itself (a NACK, an expired event), or by anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from infertool.brokers import headers as textform
from infertool.deadletters import bodies, marks
from infertool.message import BodyKind, BrokerDeath, Message
from infertool.text import json_text
from infertool.text.sanitize import printable

_YEAR_10000 = 253_402_300_799


class Writer(StrEnum):
    """Who put a message into a dead-letter queue."""

    INFERTOOL = "infertool"
    BROKER = "broker"
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter. Texts are empty, times (seconds since the epoch) None where nothing tells them.

    `failed_at` is when it became a dead letter; when the event was sent, where the broker does not tell it.
    `original_id` stays the same over deaths and replays. `origin` is the destination the event was taken from.
    Copies of one letter have one `dlq_id` (see `copies_key`); it is empty where the broker's moves are atomic, unless
    the event was moved here from elsewhere, which may have doubled it.
    """

    message: Message
    writer: Writer
    origin: str
    original_id: str
    stage: str = ""
    error_type: str = ""
    error: str = ""
    attempts: int = 0
    failed_at: float | None = None
    first_failed_at: float | None = None
    replay_count: int = 0
    replay_id: str = ""
    consumer: str = ""
    model: str = ""
    told_id: str = ""
    dlq_id: str = ""
    request_id: str = ""
    traceback: str = ""
    _payload: list[Any] = field(default_factory=list, repr=False, compare=False)

    def payload(self) -> Any:
        """Return the body read as JSON (`bodies`), None when it is none. It is decoded once, unless it is packed."""
        if bodies.is_packed(self.message):  # a few bytes may become many, and many letters are held at a time
            return _decoded(self.message)
        if not self._payload:
            self._payload.append(_decoded(self.message))
        return self._payload[0]

    @property
    def copies_key(self) -> str:
        """What copies of one letter have in common, and other letters have not; empty without a `dlq_id`.

        That alone does not tell: an application may send events on with the headers that its own event came with.
        """
        if not self.dlq_id:
            return ""
        body = blake2b(self.message.body, digest_size=_DIGEST_BYTES).hexdigest()
        return f"{self.dlq_id} {self.told_id} {body}"

    @property
    def opaque(self) -> bool:
        """Whether the body may be there and not shown.

        Some brokers show a message of another type as an empty text. Moving that would destroy it. What infertool wrote
        itself is what it looks like.
        """
        if not self.message.hides_types:
            return False
        empty = not self.message.body and self.message.kind is BodyKind.TEXT
        return empty and "original_message_id" not in marks.ours(self.message.headers)


def read(message: Message) -> DeadLetter:
    """Return `message` as a dead letter, whoever wrote it."""
    headers = message.headers
    own, death = marks.ours(headers), message.death
    writer = _writer(headers, death)
    cause = death.cause if death else ""
    known_at = _milliseconds((death and death.at_ms) or message.properties.timestamp_ms)
    return DeadLetter(
        message=message,
        writer=writer,
        origin=_origin(headers, own, writer, death),
        original_id=own.get("original_message_id") or message.id,
        stage=own.get("dlq_stage") or ("broker" if writer is Writer.BROKER else ""),
        error_type=own.get("dlq_error_type") or _cause_type(cause),
        error=own.get("dlq_error") or cause,
        attempts=_number(own.get("dlq_attempts", "")),
        failed_at=_iso(own.get("dlq_failed_at", "")) or known_at,
        first_failed_at=_iso(own.get("dlq_first_failed_at", "")) or known_at,
        replay_count=_number(own.get("replay_count", "")),
        replay_id=own.get("replay_id", ""),
        consumer=own.get("dlq_consumer", ""),
        model=own.get("dlq_model", ""),
        dlq_id=_dlq_id(own, writer),
        told_id=own.get("dlq_event_id", ""),
        request_id=own.get("dlq_request_id", ""),
        traceback=own.get("dlq_traceback", ""),
    )


def once(letters: Sequence[DeadLetter]) -> tuple[list[DeadLetter], int]:
    """Return the letters without second copies, and the number of those."""
    seen: dict[str | int, DeadLetter] = {}
    for number, letter in enumerate(letters):
        seen.setdefault(letter.copies_key or number, letter)
    return list(seen.values()), len(letters) - len(seen)


def _dlq_id(own: Mapping[str, str], writer: Writer) -> str:
    moved = own.get("replay_id", "")
    if writer is Writer.INFERTOOL and moved.startswith(marks.MOVED):
        return moved
    return own.get(marks.DLQ_ID, "")


def _writer(headers: Mapping[str, str], death: BrokerDeath | None) -> Writer:
    # A replay leaves our marks of a death and the broker's behind, so what is here was written by the latest death.
    if marks.is_dead_letter(headers):
        return Writer.INFERTOOL
    return Writer.BROKER if death else Writer.STRANGER


def _origin(headers: Mapping[str, str], own: Mapping[str, str], writer: Writer, death: BrokerDeath | None) -> str:
    brokers = death.origin if death else ""
    if writer is Writer.INFERTOOL:
        return own.get("original_destination") or brokers
    # Other tools may say it in the same way.
    return brokers or own.get("original_destination") or headers.get("original_destination", "")


_CAUSES: Final = {
    "expired": "Expired",
    "redeliver": "RedeliveriesExceeded",
    "duplicate": "Duplicate",
    "rejected": "Rejected",
    "full queue": "QueueFull",
}


def _cause_type(cause: str) -> str:
    """Return a short name for the broker's own words, e.g. `java.lang.Throwable: Message Expired. ...`."""
    text = (cause.partition(": ")[2] or cause).lower()
    places = sorted((text.find(word), name) for word, name in _CAUSES.items() if word in text)
    return places[0][1] if places else cause.partition(":")[0].rpartition(".")[2]


def _decoded(message: Message) -> Any:
    try:
        return json_text.loads_nearest(bodies.as_json(message))
    except json_text.JsonError:
        return None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004  # a sane count


def _milliseconds(at: int | None) -> float | None:
    return None if at is None else _time(at / 1000)


def _iso(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text)
        return _time((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def _time(at: float) -> float | None:
    """Return a time that can be shown and compared, None for others: an unset one is the year 1, or past all years."""
    return at if 0 <= at < _YEAR_10000 else None


_DIGEST_BYTES: Final = 16


def key(message: Message) -> str:
    """Return "QUEUE ID DIGEST": the same for each delivery of a letter, and for its record in an archive."""
    return f"{printable(message.source)} {printable(message.id)} {_digest(message)}"


def _digest(message: Message) -> str:
    digest = blake2b(digest_size=_DIGEST_BYTES)
    headers = textform.lasting(message)
    for text in (message.source, message.id, message.kind, *(part for pair in headers for part in pair)):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    digest.update(message.body)
    return digest.hexdigest()
