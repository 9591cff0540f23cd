"""Which dead letters are meant: all given conditions must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from infertool import filters, patterns
from infertool.deadletter.ids import is_known_as
from infertool.deadletter.letter import DeadLetter
from infertool.errors import UsageError
from infertool.filters import Filter
from infertool.patterns import Pattern, PatternError
from infertool.printable import printable
from infertool.units import parse_duration


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
        headers = letter.message.headers
        if "headers" in where.names:
            headers = {printable(name): printable(value) for name, value in headers.items()}
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
    return Selection(
        where=None if where is None else filters.compile(where),
        stage=stage,
        error=None if error is None else _pattern(error),
        since=None if since is None else parse_time(since, now),
        until=None if until is None else parse_time(until, now),
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
        return patterns.compile(text)
    except PatternError as fault:
        raise UsageError(f"--error {text!r} is no regular expression: {fault}") from None
