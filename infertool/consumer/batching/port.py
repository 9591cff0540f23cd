"""The port of batch policies, and the policy of a fixed size and wait."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol


class Batches(Protocol):
    """Decides how many events a worker takes for one call. Times are monotonic, in seconds."""

    @property
    def size(self) -> int:
        """The largest size of a batch now."""

    def arrived(self, count: int, now: float) -> None:
        """Note that `count` events were queued."""

    def wait_s(self, caller: Hashable, waiting: int, oldest_at: float, now: float) -> float:
        """Return how long `caller` should wait for more events, or for a call to end; 0: take them now."""

    def take(self, caller: Hashable, waiting: int, now: float) -> int:
        """Return how many of the events that wait `caller` takes now."""

    def began(self, caller: Hashable, size: int, now: float) -> None:
        """Note that `caller` took a batch."""

    def ended(self, caller: Hashable) -> None:
        """Note that the call of `caller` has ended."""

    def measured(self, caller: Hashable, size: int, started: float, seconds: float) -> None:
        """Add the time of a call."""

    def found(self) -> dict[str, int]:
        """Return the numbers that adapt, by their names in the status line."""

    def forget(self, caller: Hashable) -> None:
        """Note that `caller` makes no more calls."""


class FixedBatches:
    """Batches of up to `size` events; an event waits at most `longest_wait_s` for others."""

    def __init__(self, size: int, longest_wait_s: float) -> None:
        self.size = size
        self._longest_wait_s = longest_wait_s

    def arrived(self, count: int, now: float) -> None:
        """See `Batches`."""

    def wait_s(self, caller: Hashable, waiting: int, oldest_at: float, now: float) -> float:  # noqa: ARG002  (the port)
        """See `Batches`."""
        return 0.0 if waiting >= self.size else max(0.0, self._longest_wait_s - (now - oldest_at))

    def take(self, caller: Hashable, waiting: int, now: float) -> int:  # noqa: ARG002  (the port)
        """See `Batches`."""
        return min(waiting, self.size)

    def began(self, caller: Hashable, size: int, now: float) -> None:
        """See `Batches`."""

    def ended(self, caller: Hashable) -> None:
        """See `Batches`."""

    def measured(self, caller: Hashable, size: int, started: float, seconds: float) -> None:
        """See `Batches`."""

    def found(self) -> dict[str, int]:
        """See `Batches`."""
        return {}

    def forget(self, caller: Hashable) -> None:
        """See `Batches`."""
