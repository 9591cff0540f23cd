"""A model of a channel that some pushes end, with the pending pushes of its client: no sockets, threads or clocks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from infertool.phoenix.pending_pushes import Entry, PendingPushes, Push
from infertool.phoenix.suspects import Cause, Finding
from tests.phoenix.collect import push_of

PATIENCE_S = 10.0
WINDOW = 64
MOST_CRASHES = 3


class Model:
    """A channel that the pushes named by `ends` end, and the pending pushes of its client.

    In order, as a channel handles its mailbox; with `rng` in any order, as one does that hands its work to tasks.
    """

    def __init__(
        self, ends: Callable[[Push[int]], bool], rng: random.Random | None = None, window: int = WINDOW
    ) -> None:
        self.pending = PendingPushes[int](window)
        self.ends = ends
        self.rng = rng
        self.now = 0.0
        self.ref = 0
        self.flight: list[Entry[int]] = []
        self.crashes: Counter[int] = Counter()
        self.confirmed: list[int] = []
        self.refused: list[int] = []
        self.findings: list[Finding[int]] = []
        self.rest: list[Push[int]] = []
        self.trickled = 0
        self.sends: Counter[int] = Counter()
        self.too_large = False
        self.most_in_flight = 0

    def push(self, pushes: Sequence[Push[int]], crashes: int = 0) -> None:
        self.pending.accept(pushes, crashes)

    def send(self) -> None:
        for entry in self.pending.take_sendable(self.now, PATIENCE_S):
            self.ref += 1
            self.pending.mark_sent(entry, str(self.ref), self.now)
            self.flight.append(entry)
            self.sends[entry.push.context] += 1
        self.most_in_flight = max(self.most_in_flight, len(self.flight))

    def step(self) -> bool:
        """Send, and have the channel handle one push. False if there was none."""
        self.send()
        if not self.flight:
            return False
        entry = self.flight.pop(self.rng.randrange(len(self.flight)) if self.rng else 0)
        if self.ends(entry.push):
            self.crashes[entry.push.context] += 1
            self.flight.clear()
            finding = self.pending.crash(self.now, too_large=self.too_large)
            assert finding
            self.findings.append(finding)
            if finding.cause is Cause.PUSH:
                self.refused.append(finding.suspect.push.context)
            self.refused += [each.push.context for each in finding.apart]
            self.now += 1
        else:
            assert self.pending.settle_ref(entry.ref) is entry
            self.confirmed.append(entry.push.context)
        return True

    def run(self, stream: Sequence[Push[int]] = (), *, trickle: bool = False, until: float = 1_000) -> None:
        """Push `stream` as there is room in the window, and go on until nothing is left, or that time.

        `trickle` pushes another one, which is innocent, whenever there is nothing else to do.
        """
        self.rest += stream
        while (self.rest or len(self.pending)) and self.now < until:
            room = self.pending.room(self.now)
            if room > 0:
                self.push(self.rest[:room])
                del self.rest[:room]
            if not self.step():
                self.now += 0.5
                if trickle:
                    self.trickled += 1
                    self.rest.append(push_of(10_000 + self.trickled))

    def feed(self, *, until: float) -> None:
        """Push one every half second, whatever happens."""
        due = self.now
        while self.now < until:
            while due <= self.now:
                self.trickled += 1
                self.push([push_of(10_000 + self.trickled)])
                due += 0.5
            if not self.step():
                self.now += 0.25

    @property
    def causes(self) -> set[Cause]:
        return {finding.cause for finding in self.findings}


def among(guilty: set[int]) -> Callable[[Push[int]], bool]:
    return lambda push: push.context in guilty


def stream_of(count: int) -> list[Push[int]]:
    return [push_of(number) for number in range(count)]
