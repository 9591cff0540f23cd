"""Which headers of a message are ours, and which the producer's.

On a dead letter our names are ours; `dlq_format` says that we wrote it. On a replayed event the producer's names are
its own again; `infertool_replay` says that the others are ours. What cannot stand under its own name stands under
`infertool_kept_NAME` (the producer's) or `infertool_own_NAME` (ours): nothing of either is ever taken for the other.
A header of a type (`brokers.header_types.TypedText`) keeps it under any name.
"""

from __future__ import annotations

from collections.abc import Mapping

from infertool.brokers.port import Conventions

FORMAT, WRITTEN = "dlq_format", "infertool/1"
REPLAY = "infertool_replay"
# The same on two letters that are one, where a broker's moves are not atomic.
DLQ_ID = "dlq_id"
TIMESTAMP = "original_timestamp"
KEPT, OWN = "infertool_kept_", "infertool_own_"
# What the `replay_id` of a replay begins with that no transaction covers: letters with one such id are one.
MOVED = "moved-"

# Of one death: a replay leaves them behind.
OF_DEATH = frozenset({
    FORMAT, DLQ_ID, "dlq_event_id", "dlq_request_id", "dlq_stage", "dlq_error_type", "dlq_error", "dlq_traceback",
    "dlq_attempts", "dlq_deaths", "dlq_failed_at", "dlq_first_failed_at", "dlq_consumer", "dlq_model",
    "dlq_headers_dropped",
})  # fmt: skip
# Of the event: they stay over deaths and replays.
OF_LIFE = frozenset({
    "original_destination", "original_message_id", TIMESTAMP, "original_expires", "original_ttl",
    "original_persistent", "original_traceparent", "replay_count", "replay_id",
})  # fmt: skip
OURS = OF_DEATH | OF_LIFE
# Ours under another name: on replays where the producer has a header of that name (empty where only it has one), and
# on letters that are moved unchanged.
# What a letter is given when it is moved unchanged.
OF_STAGING = frozenset({"original_message_id", TIMESTAMP, "staged_expires", "staged_ttl", DLQ_ID})
_OWN_ON_REPLAYS = frozenset(f"{OWN}{name}" for name in OF_LIFE)
_OWN_ON_LETTERS = frozenset(f"{OWN}{name}" for name in OF_STAGING)
_OWN = _OWN_ON_REPLAYS | _OWN_ON_LETTERS

# Before there were marks, each of these was always written.
_OLD_LETTER = frozenset({
    "dlq_stage", "dlq_error_type", "dlq_error", "dlq_failed_at", "original_destination", "original_message_id",
    "replay_count",
})  # fmt: skip
_OLD_REPLAY = frozenset({"original_message_id", "replay_count", "replay_id"})


def is_dead_letter(headers: Mapping[str, str]) -> bool:
    """Return True if infertool wrote the message as a dead letter."""
    return headers.get(FORMAT) == WRITTEN or headers.keys() >= _OLD_LETTER


def is_replay(headers: Mapping[str, str]) -> bool:
    """Return True if infertool sent the message as a replay."""
    return REPLAY in headers or headers.keys() >= _OLD_REPLAY


def ours(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what infertool wrote on the message, each under its proper name."""
    if is_dead_letter(headers):
        plain, own = OURS, _OWN_ON_LETTERS
    elif is_replay(headers):
        plain, own = OF_LIFE, _OWN_ON_REPLAYS
    else:
        plain, own = frozenset(), _OWN_ON_LETTERS
    found = {name: headers[name] for name in plain if name in headers}
    found |= {name.removeprefix(OWN): headers[name] for name in own if name in headers}
    return {name: value for name, value in found.items() if value}


def producers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the producer's headers, each under its proper name. What was kept aside goes before the others."""
    if is_dead_letter(headers):
        not_theirs = OURS | _OWN_ON_LETTERS
    elif is_replay(headers):
        displaced = {name.removeprefix(OWN) for name in _OWN_ON_REPLAYS if name in headers}
        not_theirs = OF_LIFE - displaced | _OWN_ON_REPLAYS | {REPLAY}
    else:
        not_theirs = _OWN_ON_LETTERS
    theirs = {name: value for name, value in headers.items() if name not in not_theirs and not name.startswith(KEPT)}
    return theirs | {name.removeprefix(KEPT): value for name, value in headers.items() if name.startswith(KEPT)}


def of_letter(theirs: Mapping[str, str], conventions: Conventions) -> dict[str, str]:
    """Return the producer's headers as they stand on a dead letter."""
    return {_kept(name, value, conventions, taken=OURS): value for name, value in theirs.items()}


def of_replay(theirs: Mapping[str, str], own: Mapping[str, str], conventions: Conventions) -> dict[str, str]:
    """Return the producer's headers and ours as they stand on a replayed event."""
    headers = {_kept(name, value, conventions): value for name, value in theirs.items()}
    of_life = {name: own.get(name, "") for name in OF_LIFE if name in own or name in headers}
    displaced = {OWN + name if name in headers else name: value for name, value in of_life.items()}
    return {**headers, **displaced, REPLAY: WRITTEN}


def sendable(headers: Mapping[str, str], conventions: Conventions) -> dict[str, str]:
    """Return all headers of a message, so that it may be sent again as it is."""
    return {name if conventions.is_sendable(name, value) else KEPT + name: value for name, value in headers.items()}


def _kept(name: str, value: str, conventions: Conventions, taken: frozenset[str] = frozenset()) -> str:
    is_ours = name in taken or name in _OWN or name == REPLAY or name.startswith(KEPT)
    keep_aside = is_ours or name in conventions.reserved or not conventions.is_sendable(name, value)
    return KEPT + name if keep_aside else name
