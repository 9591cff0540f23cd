"""Queues as they should be, beside queues as they are. For brokers whose queues are declared before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A durable queue, as asked for. What is None, or an empty type, is left to the broker and asks for nothing.

    `dead_letter_exchange` is "" for the default exchange, which routes to the queue that the routing key names.
    """

    name: str
    type: str = ""
    max_priority: int | None = None
    delivery_limit: int | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None

    def asked(self) -> dict[str, str | int | None]:
        """Return what is asked for by its name, None for what is left to the broker."""
        return {
            "type": self.type or None,
            "max_priority": self.max_priority,
            "delivery_limit": self.delivery_limit,
            "dead_letter_exchange": self.dead_letter_exchange,
            "dead_letter_routing_key": self.dead_letter_routing_key,
        }

    def words(self) -> list[str]:
        """Return what is asked for, for people."""
        named = [
            f"{name.replace('_', ' ')} {value or '(default)'}"
            for name, value in self.asked().items()
            if value is not None
        ]
        return ["durable", *named]


class Standing(StrEnum):
    """What a broker has of a queue that is asked for."""

    MISSING = "missing"
    SAME = "same"
    DIFFERS = "differs"
    # It is there; the broker does not tell how it was declared.
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class Difference:
    """An argument of a queue that is not as asked for: both values as text, "none" where there is none."""

    argument: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.argument} is {self.found}, asked for is {self.wanted}"


@dataclass(frozen=True, slots=True)
class QueueState:
    """How a queue stands to its spec. `created` is True if it was made just now; `notes` say what else is to know."""

    spec: QueueSpec
    standing: Standing
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    created: bool = False


@runtime_checkable
class DeclaresQueues(Protocol):
    """A broker that declares queues. Optional: ask with `isinstance`."""

    def declare(self, specs: Sequence[QueueSpec], *, timeout_s: float, create: bool) -> list[QueueState]:
        """Return how each queue stands to its spec; with `create`, make those that are missing.

        A queue that exists is never changed. Raises `RefusedError`, `UnreachableError`, `ConnectionLostError`.
        """
