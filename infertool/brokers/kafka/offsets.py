"""Which events of a partition are settled. Pure; not thread-safe.

Every offset below `end` that is not open is done, or has no event: compaction removes events, and transactions leave
marks. So only the open ones are kept: the memory is that of the events in work, and gaps cost nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from heapq import merge

from infertool.brokers.kafka.metadata import NOTHING, Progress, fits


class Offsets:
    """The events of a partition since it was assigned. `start` is where it is read from, None until the first event.

    `earlier` is what an earlier assignment has done beyond `start`. `lost` counts offsets that were deleted before
    they were read, `end` is the first offset that was not read yet.
    """

    def __init__(self, start: int | None, earlier: Progress = NOTHING) -> None:
        self.end = start
        self.lost = 0
        self._open: set[int] = set()
        # The open ones in order; those that are settled behind an open one are still there.
        self._order: deque[int] = deque()
        # Those that stay as they are, in runs.
        self._passed: list[range] = []
        # Done offsets at or beyond `end`.
        self._ahead = deque(earlier.done)
        self._drop_passed()
        self._highest_done = self._ahead[-1].stop if self._ahead else (start or 0)

    @property
    def watermark(self) -> int | None:
        """All events below are done; None before the first event of a partition that was never committed."""
        if (first := self._first) is not None:
            return first
        follows = bool(self._ahead) and self._ahead[0].start == self.end
        return self._ahead[0].stop if follows else self.end

    @property
    def _first(self) -> int | None:
        """The oldest event that was read and is not done."""
        order, passed = self._order, self._passed
        if order and passed:
            return min(order[0], passed[0].start)
        return order[0] if order else passed[0].start if passed else None

    @property
    def reach(self) -> int:
        """The offset behind all events that were read, or that an earlier assignment has done."""
        return max(self.end or 0, self._highest_done)

    @property
    def open_count(self) -> int:
        """How many events were read and are not settled."""
        return len(self._open)

    @property
    def span(self) -> int:
        """The number of offsets from the oldest open event up to the newest event that was read."""
        return self.end - self._order[0] if self._order and self.end is not None else 0

    @property
    def gap(self) -> int:
        """The number of offsets from the watermark up to the newest done event."""
        return max(0, self._highest_done - (self.watermark or 0))

    @property
    def has_room(self) -> bool:
        """Return True if more may be read: what is done surely fits into a commit, whichever open ones are settled.

        Where nothing is open, only what is read next can make the commit shorter.
        """
        return not self._open or fits(self.open_count + len(self._ahead) + len(self._passed), max(self.span, self.gap))

    def take(self, offsets: Sequence[int]) -> list[int]:
        """Note that these were read, in ascending order. Return those that are not yet done."""
        if not offsets:
            return []
        end = self.end
        fresh = list(offsets) if end is None or offsets[0] >= end else [each for each in offsets if each >= end]
        if fresh:
            self.end = fresh[-1] + 1
        if self._ahead:
            fresh = self._not_ahead(fresh)
        self._open.update(fresh)
        self._order.extend(fresh)
        return fresh

    def settle(self, offsets: Iterable[int]) -> None:
        """Note that open events are done; what is not open is ignored."""
        done = self._open.intersection(offsets)
        if not done:
            return
        self._highest_done = max(self._highest_done, max(done) + 1)
        self._close(done)

    def pass_over(self, offsets: Iterable[int]) -> None:
        """Note that open events stay as they are: they are not done, and nothing waits for them."""
        passed = self._open.intersection(offsets)
        for offset in sorted(passed):
            self._pass_over(offset)
        self._close(passed)

    def _pass_over(self, offset: int) -> None:
        runs = self._passed
        at = bisect_right(runs, offset, key=lambda run: run.start)
        follows = at > 0 and runs[at - 1].stop == offset
        leads = at < len(runs) and runs[at].start == offset + 1
        start, stop = runs[at - 1].start if follows else offset, runs[at].stop if leads else offset + 1
        runs[at - follows : at + leads] = [range(start, stop)]

    def _close(self, offsets: set[int]) -> None:
        self._open -= offsets
        order = self._order
        while order and order[0] not in self._open:
            order.popleft()

    def skip_to(self, offset: int) -> int:
        """Note that what was not read below `offset` is no longer there. Return how many offsets that are."""
        end = self.end
        if end is None or offset <= end:
            return 0
        done = sum(len(range(max(run.start, end), min(run.stop, offset))) for run in self._ahead)
        lost = offset - end - done
        self.lost += lost
        self.end = offset
        self._drop_passed()
        return lost

    def done(self) -> list[range]:
        """Return the runs of offsets beyond the watermark that are done, or have no event."""
        if (start := self._first) is None or self.end is None:
            return [run for run in self._ahead if run.start != self.end]
        runs: list[range] = []
        for run in self._not_done():
            if run.start > start:
                runs.append(range(start, run.start))
            start = run.stop
        if self._highest_done > start and self.end > start:
            runs.append(range(start, self.end))
        ahead = list(self._ahead)
        if runs and ahead and ahead[0].start == runs[-1].stop:
            runs[-1] = range(runs[-1].start, ahead.pop(0).stop)
        return runs + ahead

    def _not_done(self) -> Iterable[range]:
        opened = (range(offset, offset + 1) for offset in self._order if offset in self._open)
        return merge(opened, self._passed, key=lambda run: run.start) if self._passed else opened

    def _not_ahead(self, offsets: list[int]) -> list[int]:
        """Return those that no earlier assignment has done, and forget what lies behind `end`."""
        runs, fresh = iter(self._ahead), []
        run = next(runs)
        for offset in offsets:
            while offset >= run.stop:
                run = next(runs, range(offset + 1, offset + 1))
                if offset < run.start:
                    break
            if offset not in run:
                fresh.append(offset)
        self._drop_passed()
        return fresh

    def _drop_passed(self) -> None:
        end = self.end or 0
        while self._ahead and self._ahead[0].stop <= end:
            self._ahead.popleft()
        if self._ahead and self._ahead[0].start < end:
            self._ahead[0] = range(end, self._ahead[0].stop)
