"""Which dead letters are meant: all given conditions must hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from infertool.brokers.headers import text
from infertool.brokers.port import Broker, Browse
from infertool.deadletters import ids, letters
from infertool.deadletters.ids import is_known_as
from infertool.deadletters.letters import DeadLetter
from infertool.errors import NothingMatchedError, UsageError
from infertool.filters import expression, regex
from infertool.filters.expression import Filter
from infertool.filters.regex import Pattern, PatternError
from infertool.message import Message
from infertool.text.input import did_you_mean, parse_duration
from infertool.text.sanitize import printable


def find(broker: Broker, queue: str, wanted: str, *, limit: int, timeout_s: float) -> DeadLetter:
    """Return the first letter that is known as `wanted`. Raises `NothingMatchedError`.

    `limit` bounds one browse, `timeout_s` all of them.
    """
    deadline = time.monotonic() + timeout_s
    browse = broker.browse(queue, limit=limit, timeout_s=timeout_s)
    found = find_in(broker, queue, browse, wanted, deadline)
    if not found:
        raise NothingMatchedError(f"{queue} shows no message with the id {wanted}", advice=_advice(browse))
    return found[0]


def find_in(broker: Broker, queue: str, browse: Browse, wanted: str, deadline: float) -> list[DeadLetter]:
    """Return the letters that are known as `wanted`: those in `browse`, else the first further back.

    Further back only headers are looked at: each browse whose selector finds nothing makes the next one look further,
    where selectors have a reach. `deadline` is in the monotonic clock.
    """
    found = _among(browse.messages, wanted)
    can, selector = broker.capabilities, ids.match(wanted)
    rounds = 1 if can.selector_reach is None else (browse.depth or 0) // can.selector_reach + 1
    if browse.complete or not can.selectors:
        rounds = 0
    while not found and rounds and (left := deadline - time.monotonic()) > 0:
        found = _among(broker.browse(queue, limit=1, timeout_s=left, selector=selector).messages, wanted)
        rounds -= 1
    return found


def _among(messages: Iterable[Message], wanted: str) -> list[DeadLetter]:
    known = frozenset({wanted})
    return [letter for letter in map(letters.read, messages) if ids.is_known_as(letter, known)]


def _advice(browse: Browse) -> str:
    return "" if browse.complete else "it may stand further back than the broker shows: replay-dlq --id sees all"


@dataclass(frozen=True, slots=True)
class Selection:
    """A predicate over dead letters. What is None, or empty, asks for nothing. Times are seconds since the epoch."""

    where: Filter | None = None
    stage: str | None = None
    error: Pattern | None = None
    since: float | None = None
    until: float | None = None
    ids: frozenset[str] = frozenset()

    def matches(self, letter: DeadLetter) -> bool:
        """Return True if `letter` is meant. Cheap conditions come first. Raises `FilterError`, `NotEvaluatedError`."""
        return (
            (not self.ids or is_known_as(letter, self.ids))
            and (self.stage is None or letter.stage == self.stage)
            and self._in_time(letter.failed_at)
            and (self.error is None or self.error.search(f"{letter.error_type}: {letter.error}"))
            and (self.where is None or self._is_where(self.where, letter))
        )

    def _is_where(self, where: Filter, letter: DeadLetter) -> bool:
        headers = {}
        if "headers" in where.names:
            headers = {printable(name): printable(value) for name, value in text(letter.message).items()}
        return where.matches(letter.payload(), headers=headers)

    def _in_time(self, at: float | None) -> bool:
        if self.since is None and self.until is None:
            return True
        if at is None:
            return False
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


def select(
    *,
    where: str | None = None,
    stage: str | None = None,
    error: str | None = None,
    since: str | None = None,
    until: str | None = None,
    ids: Sequence[str] = (),
    now: float,
) -> Selection:
    """Return the selection that options describe.

    `error` is a regular expression, searched in "TYPE: TEXT" whatever the case. `since` (inclusive) and `until`
    (exclusive) are durations before `now` or ISO 8601 times, local where they name no zone. Raises `UsageError`,
    `FilterError`.
    """
    after = None if since is None else parse_time(since, now)
    before = None if until is None else parse_time(until, now)
    if after is not None and before is not None and after >= before:
        raise UsageError(
            f"--since {since} is not before --until {until}: no time is between them", advice="change them round"
        )
    return Selection(
        where=None if where is None else expression.compile(where),
        stage=stage,
        error=None if error is None else _pattern(error),
        since=after,
        until=before,
        ids=frozenset(ids),
    )


def parse_time(text: str, now: float) -> float:
    """Return a point in time: `2h` before `now`, or an ISO 8601 time. Raises `UsageError`."""
    try:
        return now - parse_duration(text)
    except UsageError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise UsageError(f"{text!r} is no time", advice="write for example 2h or 2026-01-31T03:00:00Z") from None


def _pattern(text: str) -> Pattern:
    try:
        return regex.compile(text)
    except PatternError as fault:
        raise UsageError(f"--error {text!r} is no regular expression: {fault}") from None


FIELDS: Mapping[str, Callable[[DeadLetter], str]] = MappingProxyType(
    {
        "stage": lambda letter: letter.stage,
        "error_type": lambda letter: letter.error_type,
        "error": lambda letter: letter.error,
        "origin": lambda letter: letter.origin,
        "writer": lambda letter: letter.writer,
        "consumer": lambda letter: letter.consumer,
        "model": lambda letter: letter.model,
        "attempts": lambda letter: str(letter.attempts),
        "replay_count": lambda letter: str(letter.replay_count),
        "type": lambda letter: letter.message.kind,
    }
)


@dataclass(slots=True)
class Group:
    """Letters with the same values of some fields. `first` and `last` died at these times (seconds), None if unknown.

    `sample` is the newest seen.
    """

    values: tuple[str, ...]
    count: int
    first: float | None
    last: float | None
    sample: DeadLetter

    def add(self, letter: DeadLetter) -> None:
        """Count one more."""
        self.count += 1
        at = letter.failed_at
        if at is None:
            return
        self.first = at if self.first is None else min(self.first, at)
        if self.last is None or at >= self.last:
            self.last = at
            self.sample = letter


def parse_fields(text: str) -> tuple[str, ...]:
    """Return the fields in "stage,error_type". Raises `UsageError`."""
    fields = tuple(field.strip() for field in text.split(","))
    for field in fields:
        if field not in FIELDS:
            advice = did_you_mean(field, FIELDS) or f"known: {', '.join(FIELDS)}"
            raise UsageError(f"letters cannot be grouped by {field!r}", advice=advice)
    return fields


def group(letters: Iterable[DeadLetter], fields: Sequence[str]) -> list[Group]:
    """Return the groups, the largest first."""
    groups: dict[tuple[str, ...], Group] = {}
    for letter in letters:
        values = tuple(FIELDS[field](letter) for field in fields)
        known = groups.get(values)
        if known is None:
            groups[values] = Group(values, 1, letter.failed_at, letter.failed_at, letter)
        else:
            known.add(letter)
    return sorted(groups.values(), key=lambda each: (-each.count, each.values))
