"""Growth of the window of a consumer whose batches adapt: it holds what the workers need, and not more."""

from __future__ import annotations

from typing import Final

# The window is the limit if it is nearly full, and less than a batch waits, at this number of looks in a row.
NEARLY_FULL: Final = 0.75
LOOKS: Final = 3
GROWTH: Final = 2


class GrowingWindow:
    """A window of `value` messages for `workers`, which grows up to `most`. Pure: no thread, no clock."""

    def __init__(self, value: int, *, most: int, workers: int) -> None:
        self.value = value
        self.most = most
        self._workers = workers
        self._looks = 0

    @property
    def share(self) -> int:
        """The largest batch for which each worker has one, and another one waits."""
        return max(1, self.value // (self._workers + 1))

    @property
    def room(self) -> int:
        """The largest batch now: `share`, or while the window may grow, the power of two below it.

        A model that prepares itself for some sizes chooses powers of two.
        """
        return self.share if self.value >= self.most else 1 << (self.share.bit_length() - 1)

    def look(self, *, unsettled: int, waiting: int, wanted: int, moves: bool) -> bool:
        """Return True if `value` has grown.

        `unsettled` messages are in the window. `waiting` of them wait for a worker; the others are in calls, or their
        results are not yet confirmed. `wanted` is the size of batches that pays. Without new messages since the last
        look (`moves`) nothing is known: Phoenix may be away.
        """
        if not moves:
            return False
        is_short = unsettled >= NEARLY_FULL * self.value and waiting < wanted
        self._looks = self._looks + 1 if is_short else 0
        if self._looks < LOOKS or self.value >= self.most:
            return False
        self._looks = 0
        self.value = min(self.most, GROWTH * self.value)
        return True
