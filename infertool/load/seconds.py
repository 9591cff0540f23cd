"""The clock of a run: every second it takes what was counted and measured, and hands it on."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from infertool.load.record import Second
from infertool.load.tally import Clock, Measure, Meter, Tally
from infertool.telemetry.latencies import Latencies

_COUNTS = ("planned", "sent", "late", "dropped", "unsent", "confirmed", "results", "failures", "duplicates")
# A second is handed on this much after its end, when other processes have reported what they did in it.
_LAG_S: Final = 0.4
OnCut = Callable[[Second, Mapping[Measure, Latencies]], None]


class PlannedEvents:
    """How many events a plan asks for in each second, whatever became of them. Asked once, in order."""

    def __init__(self, times: Iterator[float], warmup_s: float) -> None:
        self._times = times
        self._warmup_s = warmup_s
        self._next = next(times, None)

    def up_to(self, second: int) -> int:
        """Return how many events are due by the end of `second` that were not counted before."""
        count = 0
        while self._next is not None and self._next - self._warmup_s < second + 1:
            count += 1
            self._next = next(self._times, None)
        return count


class Seconds:
    """Calls `on_cut` from a thread of its own, after the end of each second, and a last time by `stop`.

    An event that was planned counts in the second it was due, all else in the one it happened. Without a `plan`, as in
    a closed model, an event is planned when it is sent. `first` is the first second of the run.
    """

    def __init__(
        self, clock: Clock, first: int, plan: PlannedEvents | None, tally: Tally, meter: Meter, on_cut: OnCut
    ) -> None:
        self._clock = clock
        self._plan = plan
        self._plan_ended = -math.inf if plan is None else math.inf
        self._tally = tally
        self._meter = meter
        self._on_cut = on_cut
        self._t = first
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loadgen-seconds", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def end_plan(self) -> None:
        """Stop planning: from the present second on only what was planned counts so."""
        self._plan_ended = min(self._plan_ended, self._clock.second())

    def stop(self) -> None:
        """Hand on what is left, and end."""
        self._stopped.set()
        self._thread.join()
        while self._t < self._clock.second():
            self._cut_next()
        if self._t < 0:
            self._cut_next()
            self._t = 0
        self._cut(self._t, up_to=math.inf)

    def _run(self) -> None:
        while not self._stopped.wait(self._t + 1 + _LAG_S - self._clock.since_zero()):
            self._cut_next()

    def _cut_next(self) -> None:
        self._cut(self._t, up_to=self._t)
        self._t += 1

    def _cut(self, t: int, *, up_to: float) -> None:
        found = self._tally.cut(warm=t < 0, up_to=up_to)
        counts: Counter[str] = Counter()
        for each in found.values():
            counts.update(each)
        counts["planned"] = self._planned(t, found)
        histograms = self._meter.cut(up_to)
        times = {measure: latencies.percentiles() for measure, latencies in histograms.items()}
        second = Second(t, **{name: counts[name] for name in _COUNTS}, latency_ms=times)
        self._on_cut(second, histograms)

    def _planned(self, t: int, found: Mapping[int, Mapping[str, int]]) -> int:
        by_plan = self._plan.up_to(t) if self._plan and t < self._plan_ended else 0
        return by_plan + sum(each.get("planned", 0) for second, each in found.items() if second >= self._plan_ended)
