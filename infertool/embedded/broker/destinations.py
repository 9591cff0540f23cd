"""Destination headers as ActiveMQ parses them, and protocol errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class ProtocolError(Exception):
    """Sent as an ERROR frame. `fatal` closes the connection after it, as ActiveMQ does in few cases."""

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.fatal = fatal


_WILDCARDS = frozenset("*>")


class Kind(StrEnum):
    """The kind of a destination; the value is the header's prefix."""

    QUEUE = "/queue/"
    TOPIC = "/topic/"
    TEMP_QUEUE = "/temp-queue/"
    TEMP_TOPIC = "/temp-topic/"
    REMOTE_TEMP_QUEUE = "/remote-temp-queue/"
    REMOTE_TEMP_TOPIC = "/remote-temp-topic/"


class DestinationError(Exception):
    """The header names no destination of this broker."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A parsed destination header. TEMP kinds hold the owner's name, REMOTE_TEMP kinds the name for other clients."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}{self.name}"

    @property
    def is_pattern(self) -> bool:
        """True if the name has wildcards: `*` for one dotted part, `>` at the end for the rest."""
        return not _WILDCARDS.isdisjoint(self.name.split("."))


@lru_cache(maxsize=1024)
def parse(text: str) -> Destination:
    """Parse a destination header. A name without a known prefix is a queue (ActiveMQ 5.17.2, measured)."""
    text = text.strip()
    if "," in text:
        raise DestinationError(f"one destination is needed here, not several: {text}")
    if "?" in text:
        raise DestinationError(f"destination options are not supported: {text}")
    for kind in Kind:
        if text.startswith(kind):
            return _named(kind, text[len(kind) :].strip())
    return _named(Kind.QUEUE, text)


def split(text: str) -> list[str]:
    """Return the comma-separated names in a header, each once, as ActiveMQ does."""
    return list(dict.fromkeys(text.rstrip(" ,").split(",")))


def composite(parts: Sequence[Destination]) -> str:
    """Return ActiveMQ's `original-destination` of a message that was sent to all of `parts`."""
    first, *others = parts
    return ",".join([str(first), *(f"{other.kind.strip('/')}://{other.name}" for other in others)])


def _named(kind: Kind, name: str) -> Destination:
    if not name:
        raise DestinationError("Invalid empty or 'null' Destination header")
    return Destination(kind, name)


def matches(pattern: str, name: str) -> bool:
    """Return True if a dotted name matches a pattern: `a.*` matches `a.b`; `a.>` matches `a`, `a.b` and `a.b.c`."""
    wanted, parts = pattern.split("."), name.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return True
        if position >= len(parts) or part not in ("*", parts[position]):
            return False
    return len(parts) == len(wanted)
