"""Sending letters where no transaction reaches: to another broker, or out of a file. Each is confirmed for itself."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final

import msgspec

from infertool.brokers import header_types
from infertool.brokers.headers import LONG, property_texts
from infertool.brokers.port import Broker, Conventions
from infertool.deadletters import marks
from infertool.deadletters.letters import DeadLetter, Writer
from infertool.deadletters.record import NAME_BYTES, cut, dlq_id
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError, ServerError, UnreachableError
from infertool.message import Message, Outgoing

_EXPIRES_ASIDE = f"{marks.OWN}staged_expires"
_TTL_ASIDE = f"{marks.OWN}staged_ttl"
_ORIGINAL_ID = "original_message_id"


def replay(
    letter: DeadLetter,
    target: str,
    conventions: Conventions,
    *,
    replay_id: str,
    body: bytes | None = None,
    here: Conventions | None = None,
) -> Outgoing:
    """Return `letter` as an event for `target`, with `body` in place of its own when given.

    `conventions` are those of the broker that gets it; those of the broker it is on are `here`, where they differ.

    The producer's headers with their types, priority, ids and type are kept; `replay_count` is one more, `replay_id` is
    new. It never expires. The broker gives it a new timestamp, so that consumers see when it was sent; the old one is
    kept as `original_timestamp`. It is persistent, whatever the event was: a replay must survive a broker restart.
    """
    headers, known = header_types.of(letter.message), letter.message.properties
    theirs, own = marks.producers(headers), marks.ours(headers)
    if letter.writer is Writer.BROKER:
        written = conventions.death_marks | (here or conventions).death_marks
        theirs = {name: value for name, value in theirs.items() if name not in written}
    if known.timestamp_ms is not None:
        own.setdefault(marks.TIMESTAMP, str(known.timestamp_ms))
    if (here or conventions).is_queue(letter.origin):
        own.setdefault("original_destination", letter.origin)
    own |= {
        _ORIGINAL_ID: cut(letter.original_id, NAME_BYTES),
        "replay_count": str(letter.replay_count + 1),
        "replay_id": replay_id,
    }
    kept = letter.message.body if body is None else body
    properties = msgspec.structs.replace(
        known, expires_ms=None, ttl_ms=None, timestamp_ms=None, persistent=True, delivery_count=None
    )
    sent = marks.of_replay(theirs, own, conventions)
    return Outgoing(target, kept, letter.message.kind, sent, properties, header_types.tags(sent))


def unchanged(message: Message, queue: str, conventions: Conventions, *, atomic: bool = True) -> Outgoing:
    """Return `message` as it is, for another queue of dead letters.

    Headers remember its id and its time: not every broker keeps it, and a log would delete the letter by it
    (`Conventions.ages_by_time`). What the broker would not take, or act upon, is kept under another name. A letter that
    is not moved in one `atomic` step gets a `dlq_id`.
    """
    came = header_types.of(message)
    own = marks.ours(came)
    headers = marks.sendable(came, conventions)
    if _ORIGINAL_ID not in own:
        headers[marks.OWN + _ORIGINAL_ID] = cut(message.id, NAME_BYTES)
    if marks.TIMESTAMP not in own and (sent_ms := message.properties.timestamp_ms) is not None:
        headers[marks.OWN + marks.TIMESTAMP] = str(sent_ms)
    if not atomic and marks.DLQ_ID not in own:
        headers[marks.OWN + marks.DLQ_ID] = dlq_id(message)
    properties = message.properties
    if conventions.ages_by_time:
        properties = msgspec.structs.replace(properties, timestamp_ms=None)
    return Outgoing(queue, message.body, message.kind, headers, properties, header_types.tags(headers))


def staged(message: Message, staging: str, conventions: Conventions, *, atomic: bool = True) -> Outgoing:
    """Return `message` for the staging queue, where it must not expire. `unstaged` undoes this."""
    outgoing = unchanged(message, staging, conventions, atomic=atomic)
    known = outgoing.properties
    times = {_EXPIRES_ASIDE: known.expires_ms, _TTL_ASIDE: known.ttl_ms}
    aside = {name: str(value) for name, value in times.items() if value is not None}
    lasting = msgspec.structs.replace(known, expires_ms=None, ttl_ms=None)
    return replace(outgoing, headers={**outgoing.headers, **aside}, properties=lasting) if aside else outgoing


def unstaged(message: Message, queue: str, conventions: Conventions, *, atomic: bool = True) -> Outgoing:
    """Return a message of the staging queue as it was in `queue`; a time from now, which AMQP has, begins anew."""
    outgoing = unchanged(message, queue, conventions, atomic=atomic)
    headers = dict(outgoing.headers)
    fields = {_EXPIRES_ASIDE: "expires_ms", _TTL_ASIDE: "ttl_ms"}
    times = {field: int(headers.pop(name)) for name, field in fields.items() if LONG.fullmatch(headers.get(name, ""))}
    properties = msgspec.structs.replace(outgoing.properties, **times)
    return replace(outgoing, headers=headers, properties=properties) if times else outgoing


def can_be_carried(message: Message, conventions: Conventions) -> bool:
    """Return True if the broker takes `message` again; it may have delivered more than it takes."""
    headers = {**property_texts(message.properties), **marks.sendable(message.headers, conventions)}
    return len(headers) <= conventions.max_headers and all(conventions.fits(*pair) for pair in headers.items())


LONGEST_LOSS_S: Final = 300.0
_AGAIN_S: Final = 0.2
# A letter with which so many connections ended is not sent again: it may be what ends them.
_MOST_LOSSES: Final = 3
# So many batches in a row without any word on a letter: the broker confirms nothing.
_MOST_SILENCES: Final = 3

_Answers = queue.SimpleQueue[tuple[int, Exception | None]]


class Outcome(StrEnum):
    """What is known of a letter that was to be sent."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    # It was sent, and no word came: it may have arrived.
    IN_DOUBT = "in doubt"
    NOT_SENT = "not sent"


@dataclass(frozen=True, slots=True)
class Word:
    """The broker's word on one letter; `reason` says why it is not confirmed."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """The words on a batch, in its order. `fault` ends the run, after what is known was settled."""

    words: list[Word]
    fault: ServerError | None = None


class Sender:
    """Sends through a connected broker, at-least-once.

    What no word came of when a connection ended is sent again, from then on one by one, so that a letter over which the
    broker ends the connection holds up no other.
    """

    def __init__(self, broker: Broker, stop: threading.Event) -> None:
        self.conventions = broker.conventions
        self.capabilities = broker.capabilities
        self.max_bytes = broker.capabilities.max_move_bytes
        self._broker = broker
        self._stop = stop
        self._silences = 0

    def send(self, letters: Sequence[Outgoing]) -> Sent:
        """Send, and return once there is a word on each, or none can be had."""
        batch = _Batch(letters)
        fault = self._send_all(batch)
        words = batch.words()
        silent = any(word.outcome is Outcome.IN_DOUBT for word in words)
        heard = any(word.outcome in {Outcome.CONFIRMED, Outcome.REFUSED} for word in words)
        self._silences = self._silences + 1 if silent and not heard else 0
        if fault is None and self._silences >= _MOST_SILENCES:
            address = self._broker.address
            fault = UnreachableError(f"{address} confirms nothing that is sent to it", address=address)
        return Sent(words, fault)

    def _send_all(self, batch: _Batch) -> ServerError | None:
        """Return what ended it before there was a word on each."""
        self._round(batch, batch.open())
        lost_since: float | None = None
        while remaining := batch.open():
            if self._stop.is_set() and lost_since is not None:
                return batch.lost
            if not self._round(batch, remaining[:1]):
                lost_since = lost_since or time.monotonic()
                if self._stop.wait(_AGAIN_S) or time.monotonic() - lost_since > LONGEST_LOSS_S:
                    return batch.lost
            else:
                lost_since = None
        return None

    def _round(self, batch: _Batch, numbers: Sequence[int]) -> bool:
        """Send these together and wait for the words. Return whether there was a connection."""
        answers: _Answers = queue.SimpleQueue()
        waiting = 0
        for number in numbers:
            try:
                self._broker.send(batch.letters[number], partial(_put, answers, number))
            except RefusedError as refusal:  # it breaks the limits of the wire
                batch.note(number, refusal)
            except ConnectionLostError as lost:  # it was not sent
                batch.lost = lost
                break
            else:
                waiting += 1
        for _ in range(waiting):  # the adapter answers every send in the end
            batch.note(*answers.get())
        return waiting > 0 or batch.has_word(numbers)


class _Batch:
    """Letters that are sent together, and what is known of each."""

    def __init__(self, letters: Sequence[Outgoing]) -> None:
        self.letters = letters
        self.lost: ConnectionLostError | None = None
        self._losses = [0] * len(letters)
        self._words: list[Word | None] = [None] * len(letters)

    def open(self) -> list[int]:
        """Return which are still to be sent."""
        return [number for number, word in enumerate(self._words) if word is None]

    def has_word(self, numbers: Sequence[int]) -> bool:
        """Return True if there is a word on one of these."""
        return any(self._words[number] for number in numbers)

    def note(self, number: int, error: Exception | None) -> None:
        """Take the word on one that was sent."""
        match error:
            case None:
                self._words[number] = Word(Outcome.CONFIRMED)
            case RefusedError():
                self._words[number] = Word(Outcome.REFUSED, error.reason)
            case ReceiptTimeoutError():
                self._words[number] = Word(Outcome.IN_DOUBT, str(error))
            case ConnectionLostError():
                self.lost = error
                self._losses[number] += 1
                if self._losses[number] >= _MOST_LOSSES:
                    self._words[number] = Word(Outcome.IN_DOUBT, f"the connection ended each time: {error}")
            case _:
                self._words[number] = Word(Outcome.IN_DOUBT, str(error))

    def words(self) -> list[Word]:
        """Return the word on each; what was sent and has none is in doubt."""
        why = str(self.lost)
        return [
            word or Word(Outcome.IN_DOUBT if losses else Outcome.NOT_SENT, why)
            for word, losses in zip(self._words, self._losses, strict=True)
        ]


def _put(answers: _Answers, number: int, error: Exception | None) -> None:
    answers.put((number, error))
