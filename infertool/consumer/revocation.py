"""What happens to events when their partitions go to another consumer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from infertool.consumer.attempt import Event
from infertool.consumer.settlement import Settlement
from infertool.message import Message


class MessagesWait(Protocol):
    """Where messages wait that are not taken in yet."""

    def remove(self, partitions: frozenset[str]) -> list[Message]:
        """Remove and return the messages of `partitions`."""


class EventsWait(Protocol):
    """Where events wait to be tried."""

    def remove(self, is_wanted: Callable[[Event], bool]) -> list[Event]:
        """Remove and return the events for which `is_wanted` is True."""


class Revocation:
    """See `infertool.brokers.partitioned.PartitionListener`.

    An event that waits for its first or next try goes back to the broker at once. One that a worker has goes on. Until
    `revoked` it is settled as ever; after that nothing more is published or settled of it. What the publisher has by
    then stays with it, and its confirmation settles nothing.
    """

    def __init__(self, settlement: Settlement, messages: MessagesWait, *events: EventsWait) -> None:
        self._settlement = settlement
        self._messages = messages
        self._events = events
        # Those that go, from `revoking` to `revoked`.
        self._leaving: frozenset[str] = frozenset()

    def revoking(self, partitions: frozenset[str]) -> None:
        """See `infertool.brokers.partitioned.PartitionListener`."""
        self._leaving |= partitions
        self._settlement.leave(partitions)
        self.sweep()

    def revoked(self, partitions: frozenset[str]) -> None:
        """See `infertool.brokers.partitioned.PartitionListener`."""
        self.revoking(partitions)
        self._settlement.revoke(partitions)
        self._leaving -= partitions

    def sweep(self) -> None:
        """Give back what waits of the partitions that go. Call it when something came, or came back from a worker."""
        if self._leaving:
            self._settlement.give_back(self._messages.remove(self._leaving))
            for place in self._events:
                self._settlement.release(place.remove(self._settlement.is_leaving))
