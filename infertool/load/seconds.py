"""The per-second loop of a run: every second it collects counts and latencies, and passes them on."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from infertool.load.record import Second
from infertool.load.tally import Clock, Measure, Meter, Tally
from infertool.telemetry.latencies import Latencies

_COUNTS = (
    "planned", "sent", "late", "dropped", "unsent", "confirmed", "results", "failures", "timed_out", "duplicates",
    "shed", "unavailable", "retried", "retry_served",
)  # fmt: skip
# Delay after the end of a second before it is passed on, in which other processes report their counts.
_LAG_S: Final = 0.4
OnCut = Callable[[Second, Mapping[Measure, Latencies]], None]


class PlannedEvents:
    """The number of events that a plan has for each second. Queried once for each, in order."""

    def __init__(self, times: Iterator[float], warmup_s: float) -> None:
        self._times = times
        self._warmup_s = warmup_s
        self._next = next(times, None)

    def up_to(self, second: int) -> int:
        """Return how many events are due by the end of `second`, without those of earlier calls."""
        count = 0
        while self._next is not None and self._next - self._warmup_s < second + 1:
            count += 1
            self._next = next(self._times, None)
        return count


class Seconds:
    """Calls `on_cut` from its own thread after the end of each second, and a last time in `stop`.

    Planned events count in the second in which they were due, everything else in the second in which it happened.
    Without a `plan`, as in a closed model, an event is planned when it is sent. `first` is the first second of the run.
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
        """Start the thread."""
        self._thread.start()

    def end_plan(self) -> None:
        """End the plan early: from the current second on, events count as planned only when the generator had them."""
        self._plan_ended = min(self._plan_ended, self._clock.second())

    def stop(self) -> None:
        """Pass on the remaining counts and end the thread."""
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
