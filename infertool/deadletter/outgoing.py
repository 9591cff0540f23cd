"""A dead letter as the message to send: to its target, or unchanged to another queue.

Sources: docs/architecture.md, "Facts we build on"; what the broker would act upon again (`expires`,
`original-destination`) or says of one delivery must not be copied.
"""

from __future__ import annotations

from collections.abc import Mapping

from infertool.deadletter.letter import DeadLetter
from infertool.deadletter.record import DELIVERY_HEADERS, fits
from infertool.message import Message, Outgoing

# Of the last death only: they would be lies on a living event. `original_*` stay: they tell where it once came from.
_OF_DEATH = frozenset({"dlqDeliveryFailureCause", "originalExpiration"})
_OURS = "dlq_"
# The wire's limit of 1000 headers a frame, less those the adapter adds.
_MOST_HEADERS = 990

# Only what settles or addresses one delivery; the adapter writes these anew.
_OF_DELIVERY = frozenset({
    "message-id", "subscription", "ack", "destination", "content-length", "redelivered", "transaction", "receipt",
    "persistent", "amq-msg-type",
})  # fmt: skip
_ASIDE = "staged_expires"


def replay(letter: DeadLetter, target: str, *, replay_id: str, body: bytes | None = None) -> Outgoing:
    """Return `letter` as an event for `target`, with `body` in place of its own when given.

    The user's headers, priority, correlation id and JMS type are kept; `replay_count` is one more, `replay_id` is
    new. It never expires. The broker gives it a new timestamp, so that consumers see when it was sent; the old one is
    kept as `original_timestamp`. It is persistent, whatever the event was: a replay must survive a broker restart.
    """
    headers = {key: value for key, value in letter.message.headers.items() if not _is_of_death(key)}
    sent_at = headers.pop("timestamp", None)
    if sent_at is not None:
        headers.setdefault("original_timestamp", sent_at)
    headers |= {
        "original_message_id": letter.original_id,
        "replay_count": str(letter.replay_count + 1),
        "replay_id": replay_id,
    }
    kept = letter.message.body if body is None else body
    return Outgoing(target, kept, letter.message.kind, headers, persistent=True)


def unchanged(message: Message, queue: str) -> Outgoing:
    """Return `message` as it is, for another queue of dead letters.

    Its id is the only thing that cannot be kept, so `original_message_id` remembers it.
    """
    headers = {key: value for key, value in message.headers.items() if key not in _OF_DELIVERY}
    headers.setdefault("original_message_id", message.id)
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
    """Say whether a broker takes a message with these headers; it may have delivered more than it takes."""
    return len(headers) <= _MOST_HEADERS and all(fits(key, value) for key, value in headers.items())


def _is_of_death(key: str) -> bool:
    return key in DELIVERY_HEADERS or key in _OF_DEATH or key.startswith(_OURS)
