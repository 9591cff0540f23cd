"""Queues that are logs, in partitions that a group of consumers shares: an optional part of the broker port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from infertool.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far a group of consumers is behind on a queue of partitions.

    `messages` are not settled yet; `seconds` is the age of the oldest of them, None where none waits. `lost` messages
    were deleted before they were settled, since this connection began. `gap` is the largest number of offsets between
    the oldest unsettled message of a partition and the newest settled one.
    """

    messages: int
    seconds: float | None
    lost: int
    gap: int


@runtime_checkable
class Lagging(Protocol):
    """A broker that keeps messages after they are settled. Optional: ask with `isinstance`."""

    def lag(self, queue: str, timeout_s: float) -> Lag | None:
        """Return how far this broker's group is behind, or None when the broker does not say within `timeout_s`."""


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """An event that is not settled after `seconds` is delivered again. `remedy` says what raises the limit."""

    seconds: float
    remedy: str

    def exceeded_by(self, timeout_s: float) -> str:
        """Return what is wrong with a call of a model that may take `timeout_s`; empty if nothing is."""
        if timeout_s < self.seconds:
            return ""
        return (
            f"consume.timeout_s is {timeout_s:g} s, and an event that takes longer than {self.seconds:g} s is "
            f"delivered again, whatever becomes of it: set consume.timeout_s below that, or {self.remedy}"
        )


@runtime_checkable
class Limiting(Protocol):
    """A broker that may limit the time of an event. Optional: ask with `isinstance`."""

    def time_limit(self, queue: str, timeout_s: float) -> TimeLimit | None:
        """Return the limit for events of `queue`; None where there is none, or the broker does not say."""


@runtime_checkable
class Log(Protocol):
    """A broker whose queues are logs (`Capabilities.log`). Optional: ask with `isinstance`."""

    def group(self, queue: str) -> str:
        """Return the name of the group for which this broker's subscriptions settle messages of `queue`."""

    def delete_settled(self, queue: str, timeout_s: float) -> int:
        """Delete the messages of `queue` up to the first unsettled one of each partition; return how many those were.

        They are gone for every group. Raises `RefusedError`, `UnreachableError`.
        """


@runtime_checkable
class Joins(Protocol):
    """A subscription that its group gives partitions, some time after it began. Optional: ask with `isinstance`.

    A group waits for a consumer that ended without a word, such as a killed one.
    """

    @property
    def partitions(self) -> int | None:
        """How many it has; None until the group says so, also after all were lost: nothing can come before."""


@runtime_checkable
class PassesOver(Protocol):
    """A subscription to a log that can leave messages in their places. Optional: ask with `isinstance`."""

    def pass_over(self, messages: Sequence[Message]) -> None:
        """Give `messages` out no more, and do not settle them: they take up no room, and the group's next run has them.

        Those of a partition that is assigned anew come again.
        """


class PartitionListener(Protocol):
    """Hears of partitions that another consumer takes over. Called on the thread that reads; returns at once."""

    def revoking(self, partitions: frozenset[str]) -> None:
        """Give back what has not begun of these (`Partitioned.release`); what has may be settled for some seconds."""

    def revoked(self, partitions: frozenset[str]) -> None:
        """Publish, settle and dead-letter nothing more of these: another consumer does."""


@runtime_checkable
class Partitioned(Protocol):
    """A subscription whose partitions may go to another consumer. Optional: ask with `isinstance`.

    Each message names its `partition`; its `epoch` is the number of the assignment that delivered it.
    """

    def listen(self, listener: PartitionListener) -> None:
        """Tell `listener` of revocations from now on."""

    def release(self, messages: Sequence[Message]) -> None:
        """Note that `messages` are no longer in work, and not settled."""
