"""Who ends the channel: tested on a model of one, without sockets, threads or clocks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from infertool.phoenix.ledger import Entry, Ledger, Push
from infertool.phoenix.suspects import Cause, Finding
from tests.phoenix.collect import push_of

PATIENCE_S = 10.0
WINDOW = 64
MOST_CRASHES = 3


class Model:
    """A channel that ends over the pushes that `ends` names, and the ledger of whoever pushes to it.

    In order, as a channel handles its mailbox; with `rng` in any order, as one does that hands its work to tasks.
    """

    def __init__(self, ends: Callable[[Push], bool], rng: random.Random | None = None) -> None:
        self.ledger = Ledger()
        self.ends = ends
        self.rng = rng
        self.now = 0.0
        self.ref = 0
        self.flight: list[Entry] = []
        self.crashes: Counter[int] = Counter()
        self.confirmed: list[int] = []
        self.refused: list[int] = []
        self.findings: list[Finding] = []
        self.trickled = 0
        self.sends: Counter[int] = Counter()

    def push(self, pushes: Sequence[Push], crashes: int = 0) -> None:
        self.ledger.accept(pushes, crashes)

    def send(self) -> None:
        for entry in self.ledger.take_sendable(self.now, PATIENCE_S):
            self.ref += 1
            self.ledger.mark_sent(entry, str(self.ref), self.now)
            self.flight.append(entry)
            self.sends[entry.push.context] += 1

    def step(self) -> bool:
        """Send, and have the channel handle one push. False if there was none."""
        self.send()
        if not self.flight:
            return False
        entry = self.flight.pop(self.rng.randrange(len(self.flight)) if self.rng else 0)
        if self.ends(entry.push):
            self.crashes[entry.push.context] += 1
            self.flight.clear()
            finding = self.ledger.crash(self.now, too_large=False)
            assert finding
            self.findings.append(finding)
            if finding.cause is Cause.PUSH:
                self.refused.append(finding.suspect.push.context)
            self.refused += [each.push.context for each in finding.apart]
            self.now += 1
        else:
            assert self.ledger.settle_ref(entry.ref) is entry
            self.confirmed.append(entry.push.context)
        return True

    def run(self, stream: Sequence[Push] = (), *, trickle: bool = False, until: float = 1_000) -> None:
        """Push `stream` as there is room in the window, and go on until nothing is left, or that time.

        `trickle` pushes another one, which is innocent, whenever there is nothing else to do.
        """
        rest = list(stream)
        while (rest or len(self.ledger)) and self.now < until:
            room = WINDOW - self.ledger.in_hand(self.now)
            if room > 0:
                self.push(rest[:room])
                del rest[:room]
            if not self.step():
                self.now += 0.5
                if trickle:
                    self.trickled += 1
                    rest.append(push_of(10_000 + self.trickled))

    @property
    def causes(self) -> set[Cause]:
        return {finding.cause for finding in self.findings}


def among(guilty: set[int]) -> Callable[[Push], bool]:
    return lambda push: push.context in guilty


def stream_of(count: int) -> list[Push]:
    return [push_of(number) for number in range(count)]


@st.composite
def guilty_sets(draw: st.DrawFn) -> tuple[int, set[int]]:
    """Up to eight guilty pushes anywhere among up to 300."""
    count = draw(st.integers(20, 300))
    return count, draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=8))


def assert_only_the_guilty_refused(model: Model, count: int, guilty: set[int]) -> None:
    assert sorted(model.refused) == sorted(guilty)
    assert sorted(number for number in model.confirmed if number < count) == sorted(set(range(count)) - guilty)
    assert len(model.confirmed) == count - len(guilty) + model.trickled


@settings(max_examples=100, deadline=None)
@given(guilty_sets())
def test_each_guilty_push_is_found_within_three_crashes(case: tuple[int, set[int]]) -> None:
    count, guilty = case
    model = Model(among(guilty))
    model.run(stream_of(count), trickle=True)
    assert_only_the_guilty_refused(model, count, guilty)
    assert max(model.crashes.values()) <= MOST_CRASHES


@settings(max_examples=100, deadline=None)
@given(guilty_sets(), st.randoms(use_true_random=False))
def test_a_channel_that_answers_in_any_order(case: tuple[int, set[int]], rng: random.Random) -> None:
    """Then the first in order is not always the guilty one."""
    count, guilty = case
    model = Model(among(guilty), rng)
    model.run(stream_of(count), trickle=True)
    assert_only_the_guilty_refused(model, count, guilty)
    assert max(model.crashes.values()) <= MOST_CRASHES
