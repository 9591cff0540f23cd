"""A dead letter as the message to send: to its target, or unchanged to another queue.

Sources: docs/architecture.md, "Facts we build on"; what the broker would act upon again (`expires`, schedules, its own
marks of a death) or says of one delivery must not be copied under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping

from infertool.brokers.stomp.destination import is_queue
from infertool.brokers.stomp.sendable import is_sendable
from infertool.deadletter import marks
from infertool.deadletter.letter import BROKERS_MARKS, DeadLetter, Writer
from infertool.deadletter.record import NAME_BYTES, cut, fits
from infertool.message import Message, Outgoing

# The wire's limit of 1000 headers a frame, less those the adapter adds.
_MOST_HEADERS = 990
_ASIDE = f"{marks.OWN}staged_expires"
_ORIGINAL_ID = "original_message_id"


def replay(letter: DeadLetter, target: str, *, replay_id: str, body: bytes | None = None) -> Outgoing:
    """Return `letter` as an event for `target`, with `body` in place of its own when given.

    The producer's headers, priority, correlation id and JMS type are kept; `replay_count` is one more, `replay_id` is
    new. It never expires. The broker gives it a new timestamp, so that consumers see when it was sent; the old one is
    kept as `original_timestamp`. It is persistent, whatever the event was: a replay must survive a broker restart.
    """
    headers = letter.message.headers
    theirs = marks.producers(headers)
    own = marks.ours(headers)
    if letter.writer is Writer.BROKER:
        theirs = {name: value for name, value in theirs.items() if name not in BROKERS_MARKS}
    for name in ("expires", "timestamp"):
        value = theirs.get(name, "")
        if is_sendable(name, value):
            del theirs[name]
            if name == "timestamp":
                own.setdefault("original_timestamp", value)
    if is_queue(letter.origin):
        own.setdefault("original_destination", letter.origin)
    own |= {
        _ORIGINAL_ID: cut(letter.original_id, NAME_BYTES),
        "replay_count": str(letter.replay_count + 1),
        "replay_id": replay_id,
    }
    kept = letter.message.body if body is None else body
    return Outgoing(target, kept, letter.message.kind, marks.of_replay(theirs, own), persistent=True)


def unchanged(message: Message, queue: str) -> Outgoing:
    """Return `message` as it is, for another queue of dead letters.

    Its id is the only thing that cannot be kept, so a header remembers it. What the broker would not take, or act upon,
    is kept under another name.
    """
    headers = marks.sendable(message.headers)
    if _ORIGINAL_ID not in marks.ours(message.headers):
        headers[marks.OWN + _ORIGINAL_ID] = cut(message.id, NAME_BYTES)
    persistent = message.headers.get("persistent") == "true"
    return Outgoing(queue, message.body, message.kind, headers, persistent=persistent)


def staged(message: Message, staging: str) -> Outgoing:
    """Return `message` for the staging queue, where it must not expire. `unstaged` undoes this."""
    outgoing = unchanged(message, staging)
    headers = dict(outgoing.headers)
    expires = headers.pop("expires", "0")
    if expires != "0":
        headers[_ASIDE] = expires
    return Outgoing(staging, outgoing.body, outgoing.kind, headers, persistent=outgoing.persistent)


def unstaged(message: Message, queue: str) -> Outgoing:
    """Return a message of the staging queue as it was in `queue`."""
    outgoing = unchanged(message, queue)
    headers = dict(outgoing.headers)
    if _ASIDE in headers:
        headers["expires"] = headers.pop(_ASIDE)
    return Outgoing(queue, outgoing.body, outgoing.kind, headers, persistent=outgoing.persistent)


def can_be_carried(headers: Mapping[str, str]) -> bool:
    """Return True if a broker takes a message with these headers; it may have delivered more than it takes."""
    return len(headers) <= _MOST_HEADERS and all(fits(key, value) for key, value in marks.sendable(headers).items())
