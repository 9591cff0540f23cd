"""Which deliveries of a channel are not yet settled. Delivery tags count from 1, without gaps."""

from __future__ import annotations

from collections.abc import Iterable


class Unacked:
    """All tags up to `_floor` are settled, and those of `_settled` above it. Not thread-safe."""

    def __init__(self) -> None:
        self.newest = 0
        self._floor = 0
        self._settled: set[int] = set()

    def is_open(self, tag: int) -> bool:
        """Return True if the broker waits for a word on this delivery."""
        return self._floor < tag <= self.newest and tag not in self._settled

    def settle(self, tags: Iterable[int]) -> tuple[int, list[int]]:
        """Note that open deliveries are settled. Return the fewest acks for that: one up to a tag, and single ones.

        The first is 0 where there is none.
        """
        fresh = sorted(tags)
        settled = self._settled
        settled.update(fresh)
        floor = self._floor
        while floor + 1 in settled:
            floor += 1
            settled.discard(floor)
        self._floor = floor
        below = [tag for tag in fresh if tag <= floor]
        # The broker refuses an ack of a delivery that it has taken as acked, so the last fresh one is named.
        if len(below) > 1:
            return below[-1], fresh[len(below) :]
        return 0, fresh

    def settle_confirmed(self, tag: int, *, multiple: bool) -> int:
        """Note what a broker confirmed, up to a tag (0: all) or it alone. Return how many were open."""
        if not multiple:
            tags = [tag] if self.is_open(tag) else []
        else:
            tags = [each for each in range(self._floor + 1, (tag or self.newest) + 1) if self.is_open(each)]
        if tags:
            self.settle(tags)
        return len(tags)
