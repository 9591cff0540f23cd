"""How many requests of one class run before another one, by the tags of its clients' lines."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from infertool.gateway.client_line import ClientLine

_STALE_SHARE = 16


class Positions:
    """A picture of a class, from which ranks are read in O(log clients).

    The tags of a line go up by 1/share with each of its requests, so the number of requests before a tag is a sum of
    ramps. The picture is drawn again after one change in 16 clients: so it is exact for few of them. What was taken
    off since is subtracted.
    """

    def __init__(self, lines: Iterable[ClientLine], order: int) -> None:
        bends: list[tuple[float, float]] = []
        heads: list[tuple[float, int]] = []
        lasts: list[float] = []
        for line in lines:
            bends += ((line.tag, line.share), (line.tag + len(line) / line.share, -line.share))
            heads.append((line.tag, line.order))
            lasts.append(line.tag + (len(line) - 1) / line.share)
        self._heads, self._lasts = sorted(heads), sorted(lasts)
        self._tags: list[float] = []
        self._counts: list[float] = []
        self._slopes: list[float] = []
        count = slope = last = 0.0
        for tag, change in sorted(bends):
            count += slope * (tag - last)
            slope, last = slope + change, tag
            self._tags.append(tag)
            self._counts.append(count)
            self._slopes.append(slope)
        self.order = order
        """Lines of this order or a later one are not in the picture."""
        self._changes_left = len(heads) // _STALE_SHARE
        self._popped = 0

    def is_fresh_after(self, *, pops: int) -> bool:
        """Note a change of the class that took `pops` requests off. Return False when the picture is too old."""
        self._changes_left -= 1
        self._popped += pops
        return self._changes_left >= 0

    def before(self, tag: float, order: int | None) -> int:
        """Return the number of requests that run before the one with this tag.

        `order` is that of the line when it is the line's first request; None for a later one.
        """
        at = bisect_right(self._tags, tag) - 1
        count = self._counts[at] + self._slopes[at] * (tag - self._tags[at]) if at >= 0 else 0.0
        earlier = bisect_left(self._heads, (tag, -1))
        if order is not None:  # among the same tags, the earlier order
            count += bisect_left(self._heads, (tag, order)) - earlier
        else:  # who has this tag now comes first; of those that reach it like this one, half of them
            count += bisect_right(self._heads, (tag, self.order)) - earlier
            count += max(earlier - bisect_left(self._lasts, tag) - 1, 0) / 2
        return max(round(count) - self._popped, 0)
