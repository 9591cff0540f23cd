"""A consumer's workers and a device, simulated: events, calls and waits on a clock of their own."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from infertool.consumer.batching.port import Batches

Seconds = Callable[[int, float], float]


@dataclass
class Run:
    """What came of a simulation: for each event its end and latency, for each call its begin and size."""

    ended: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    calls: list[tuple[float, int]] = field(default_factory=list)

    def rate(self, after: float, before: float) -> float:
        """Return the events a second that ended between two times."""
        return sum(after <= at < before for at in self.ended) / (before - after)

    def p99(self, after: float = 0.0) -> float:
        """Return the 99th percentile of the latencies of those that ended later than `after`."""
        late = sorted(latency for at, latency in zip(self.ended, self.latencies, strict=True) if at >= after)
        return late[int(len(late) * 0.99)]


@dataclass(frozen=True)
class Beside:
    """What a worker does beside calls, for one worker at a time: the interpreter lock.

    Decoding and encoding take `batch_s` a batch and `event_s` an event, and `held` is the part of a call that computes.
    """

    batch_s: float = 0.0
    event_s: float = 0.0
    held: float = 0.0


class Simulation:
    """Workers whose call of `size` events at `now` takes `seconds(size, now)` times the worker's factor."""

    def __init__(
        self, batches: Batches, seconds: Seconds, factors: Sequence[float], *, serial: bool, beside: Beside = Beside()
    ) -> None:
        self.run = Run()
        self._batches = batches
        self._seconds = seconds
        self._serial = serial
        self._beside = beside
        self._waiting: deque[float] = deque()
        self._free = list(range(len(factors)))
        self._factors = factors
        self._coming: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = itertools.count()
        self._device_free_at = 0.0
        self._lock_free_at = 0.0
        self._look_at = math.inf

    def at(self, when: float, act: Callable[[float], None]) -> None:
        """Have `act` called at a time."""
        heapq.heappush(self._coming, (when, next(self._number), act))

    def arrive(self, count: int, now: float) -> None:
        """Queue events."""
        self._waiting.extend([now] * count)
        self._batches.arrived(count, now)

    def go(self, until: float, on_end: Callable[[int, float], None]) -> Run:
        """Run; `on_end` is called with the size of each call that ends."""
        while self._coming and self._coming[0][0] < until:
            now, _, act = heapq.heappop(self._coming)
            act(now)
            while self._free and self._waiting and self._take(now, on_end):
                pass
        return self.run

    def _take(self, now: float, on_end: Callable[[int, float], None]) -> bool:
        batches, waiting = self._batches, self._waiting
        wait_s = batches.wait_s(self._free[-1], len(waiting), waiting[0], now)
        if wait_s > 0:
            # A nanosecond more: times are rounded.
            if not now < self._look_at <= now + wait_s + 1e-9:
                self._look_at = now + wait_s + 1e-9
                self.at(self._look_at, lambda _now: None)
            return False
        worker = self._free.pop()
        group = [waiting.popleft() for _ in range(batches.take(worker, len(waiting), now))]
        batches.began(worker, len(group), now)
        self.at(self._compute(self._beside_s(group), now), lambda begun: self._call(worker, group, begun, on_end))
        return True

    def _call(self, worker: int, group: list[float], begun: float, on_end: Callable[[int, float], None]) -> None:
        seconds = self._seconds(len(group), begun) * self._factors[worker]
        computed = self._compute(self._beside.held * seconds, begun)
        begins = max(computed, self._device_free_at) if self._serial else computed
        ends = self._device_free_at = begins + (1 - self._beside.held) * seconds
        self.run.calls.append((begun, len(group)))

        def end(ended: float) -> None:
            self._batches.ended(worker)
            self._batches.measured(worker, len(group), begun, ended - begun)
            self.at(self._compute(self._beside_s(group), ended), settle)

        def settle(settled: float) -> None:
            self.run.ended += [settled] * len(group)
            self.run.latencies += [settled - arrived for arrived in group]
            self._free.append(worker)
            on_end(len(group), settled)

        self.at(ends, end)

    def _beside_s(self, group: list[float]) -> float:
        """Return the time before a call, which is also that after it."""
        return (self._beside.batch_s + self._beside.event_s * len(group)) / 2

    def _compute(self, seconds: float, now: float) -> float:
        """Hold the lock for a time, and return when that ends."""
        if not seconds:
            return now
        self._lock_free_at = max(now, self._lock_free_at) + seconds
        return self._lock_free_at


def simulate(
    batches: Batches,
    arrivals: Iterable[float],
    seconds: Seconds,
    *,
    until: float,
    factors: Sequence[float] = (1.0, 1.0),
    serial: bool = False,
    window: int = 0,
    beside: Beside = Beside(),
) -> Run:
    """Run until a time. With a `window` there is always more, and so many events are here; else they arrive."""
    simulation = Simulation(batches, seconds, factors, serial=serial, beside=beside)
    if window:
        simulation.at(0.0, partial(simulation.arrive, window))
        return simulation.go(until, simulation.arrive)
    source = iter(arrivals)

    def follow(now: float) -> None:
        simulation.arrive(1, now)
        if (following := next(source, None)) is not None:
            simulation.at(following, follow)

    if (first := next(source, None)) is not None:
        simulation.at(first, follow)
    return simulation.go(until, lambda _count, _now: None)


def linear(fixed_s: float, each_s: float, noise: float = 0.0, outliers: float = 0.0, seed: int = 1) -> Seconds:
    """Return the times of a model: a line, with noise of that deviation, and that part of calls five times slower."""
    draw = random.Random(seed)

    def seconds(size: int, _now: float) -> float:
        factor = max(0.3, draw.gauss(1, noise)) * (5 if draw.random() < outliers else 1)
        return (fixed_s + each_s * size) * factor

    return seconds


def poisson(rate: float, until: float, seed: int = 2) -> Iterator[float]:
    """Yield arrivals at random."""
    draw = random.Random(seed)
    now = 0.0
    while (now := now + draw.expovariate(rate)) < until:
        yield now


def bursts(rate: float, until: float, size: int = 20) -> Iterator[float]:
    """Yield arrivals in groups."""
    for number in itertools.count():
        if (at := number * size / rate) >= until:
            return
        yield from itertools.repeat(at, size)
