"""Dead letters in groups: how many of each kind, since when, and one to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from infertool.deadletter.letter import DeadLetter
from infertool.errors import UsageError
from infertool.nearest import did_you_mean

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
