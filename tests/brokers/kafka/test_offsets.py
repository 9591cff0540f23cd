"""The tracker of a partition, beside a model that keeps a flag for each offset."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from infertool.brokers.kafka.metadata import NOTHING, Progress, decode, encode
from infertool.brokers.kafka.offsets import Offsets


class Tracking(RuleBasedStateMachine):
    """A topic with holes, read in batches; events are settled in any order; restarts go on from the commit."""

    @initialize(holes=st.sets(st.integers(0, 400)), start=st.integers(0, 20))
    def begin(self, holes: set[int], start: int) -> None:
        self.first = start
        self.exists = [offset for offset in range(start, 400) if offset not in holes]
        self.done: set[int] = set()
        self.gone: set[int] = set()
        self.open: list[int] = []
        self.passed: list[int] = []
        self.offsets = Offsets(start)
        self.position = start

    @rule(count=st.integers(1, 40))
    def read(self, count: int) -> None:
        batch = [offset for offset in self.exists if offset >= self.position and offset not in self.gone][:count]
        fresh = self.offsets.take(batch)
        assert fresh == [offset for offset in batch if offset not in self.done]
        self.open += fresh
        if batch:
            self.position = batch[-1] + 1

    @rule(picks=st.lists(st.integers(0, 10_000), max_size=20))
    def settle(self, picks: list[int]) -> None:
        chosen = {self.open[pick % len(self.open)] for pick in picks if self.open}
        # What is not open makes no difference.
        self.offsets.settle([*chosen, 9_999])
        self.done |= chosen
        self.open = [offset for offset in self.open if offset not in chosen]

    @rule(picks=st.lists(st.integers(0, 10_000), max_size=20))
    def pass_over(self, picks: list[int]) -> None:
        chosen = {self.open[pick % len(self.open)] for pick in picks if self.open}
        self.offsets.pass_over([*chosen, 9_999])
        self.passed = sorted({*self.passed, *chosen})
        self.open = [offset for offset in self.open if offset not in chosen]

    @rule(ahead=st.integers(0, 30))
    def retention(self, ahead: int) -> None:
        target = self.position + ahead
        deleted = [offset for offset in range(self.position, target) if offset not in self.done]
        assert self.offsets.skip_to(target) <= len(deleted)
        self.gone |= set(range(self.position, target))
        self.position = max(self.position, target)

    @rule()
    def restart(self) -> None:
        """What was open or passed over comes again, and nothing that was settled."""
        text = encode(self.offsets.done(), self.offsets.end or 0)
        start = self.offsets.watermark
        self.offsets = Offsets(start, decode(text) or NOTHING)
        self.position = start or 0
        self.open, self.passed = [], []

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "offsets"):
            return
        watermark = self.offsets.watermark
        assert watermark is not None
        # Without open events it lies behind what was read, and what is done from there on.
        left = sorted([*self.open, *self.passed])
        assert watermark == left[0] if left else watermark >= self.position
        assert self.offsets.open_count == len(self.open)
        assert self.offsets.span == (self.position - self.open[0] if self.open else 0)
        beyond = {offset for offset in self.done if offset >= watermark}
        runs = self.offsets.done()
        # After a restart, an offset without an event counts as a done one.
        least = max(beyond) + 1 - watermark if beyond else 0
        assert least <= self.offsets.gap <= max(least, runs[-1].stop - watermark if runs else 0)
        assert all(one.stop < other.start for one, other in pairwise(runs))
        told = {offset for run in runs for offset in run}
        assert beyond <= told
        assert not told.intersection(left)
        waiting = {
            offset
            for offset in self.exists
            if offset >= self.position and offset not in self.done and offset not in self.gone
        }
        assert not told & waiting
        assert not any(offset < watermark for offset in waiting)
        assert watermark not in told


TestTracking = Tracking.TestCase


def test_a_partition_without_a_commit_begins_with_its_first_event() -> None:
    offsets = Offsets(None)
    before = offsets.watermark
    assert before is None
    assert offsets.take([17, 18, 30]) == [17, 18, 30]
    assert offsets.watermark == 17
    offsets.settle([17, 30])
    assert (offsets.watermark, offsets.done(), offsets.gap) == (18, [range(19, 31)], 13)
    offsets.settle([18])
    assert (offsets.watermark, offsets.done(), offsets.gap) == (31, [], 0)


def test_a_commit_that_was_moved_by_hand_is_followed() -> None:
    """Back before the runs that are done, into the midst of one, or behind all of them."""
    earlier = Progress((range(10, 20), range(30, 40)), 40)
    assert Offsets(5, earlier).done() == [range(10, 20), range(30, 40)]
    assert (Offsets(15, earlier).watermark, Offsets(15, earlier).done()) == (20, [range(30, 40)])
    assert (Offsets(50, earlier).watermark, Offsets(50, earlier).done()) == (50, [])


def test_what_retention_deleted_is_counted_but_not_what_was_done() -> None:
    offsets = Offsets(10, Progress((range(12, 15), range(20, 30)), 30))
    assert offsets.skip_to(22) == 12 - 3 - 2
    assert offsets.lost == 7
    assert offsets.take([22, 29, 30]) == [30]
    assert offsets.skip_to(25) == 0


def test_what_is_passed_over_takes_little_memory_and_stops_nothing() -> None:
    offsets = Offsets(0)
    for first in range(0, 100_000, 1000):
        batch = range(first, first + 1000)
        offsets.take(batch)
        offsets.settle(batch[500:501])
        offsets.pass_over([*batch[501:], *batch[:500]])
        assert (offsets.span, offsets.has_room, offsets.watermark) == (0, True, 0)
    assert len(offsets._passed) == 101
    assert encode(offsets.done(), 0).startswith("infertool/1 0 500 r:")


def test_memory_is_that_of_the_open_events_however_long_one_of_them_lasts() -> None:
    offsets = Offsets(0)
    for start in range(0, 100_000, 100):
        batch = list(range(start, start + 100))
        offsets.take(batch)
        offsets.settle(batch[1:] if start == 0 else batch)
    assert (offsets.watermark, offsets.open_count, offsets.done()) == (0, 1, [range(1, 100_000)])
    assert offsets.has_room
