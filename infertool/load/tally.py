"""Counts of a run as it goes: sums so far, and by the second in which they fell. Warm-up is kept apart."""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from infertool.telemetry.latencies import Latencies

_PLACES = re.compile(r"-(\d{1,12})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class RunClock:
    """The begin on the monotonic clock, which all processes of a machine share, and on the wall clock, in seconds.

    `run_id` belongs to one run only, also among runs of one seed: a result of an earlier run must not count.
    """

    run_id: str
    mono: float
    wall: float

    def event_id(self, number: int, due: float) -> str:
        """Return the id of event `number`, due so many seconds, in whole microseconds, after the begin."""
        return f"{self.run_id}-{number}-{round(due * 1e6)}"

    def read(self, event_id: object) -> tuple[int, float] | None:
        """Return the number and the due time that an id of this run tells; None for any other."""
        if not isinstance(event_id, str) or not event_id.startswith(self.run_id):
            return None
        match = _PLACES.fullmatch(event_id, len(self.run_id))
        return match and (int(match[1]), int(match[2]) / 1e6)


def new_run_id() -> str:
    """Return the beginning of the ids of a run's events."""
    return f"lg{secrets.token_hex(4)}"


def begin(delay_s: float, run_id: str | None = None) -> RunClock:
    """Return the epoch of a run that begins in `delay_s`."""
    return RunClock(run_id or new_run_id(), time.monotonic() + delay_s, time.time() + delay_s)


class Clock:
    """Tells the second of a run: 0 begins at the end of the warm-up; those of the warm-up are negative."""

    def __init__(self) -> None:
        self._zero = time.monotonic()

    def start(self, run_clock: RunClock, warmup_s: float) -> None:
        """Take the run's begin and the length of its warm-up."""
        self._zero = run_clock.mono + warmup_s

    def since_zero(self) -> float:
        """Return the seconds since the end of the warm-up."""
        return time.monotonic() - self._zero

    def second(self, at: float | None = None) -> int:
        """Return the second of `at` on the monotonic clock; by default of now."""
        return math.floor(self.since_zero() if at is None else at - self._zero)


class Measure(StrEnum):
    """What a time says.

    `SLIP`: from the intended send to the actual one; the generator's own lateness.
    `SEND`: from the actual send to the broker's receipt; with --confirm.
    `E2E`: from the *intended* send to the arrival at the dashboard's topic; with --e2e.
    """

    SLIP = "slip"
    SEND = "send"
    E2E = "e2e"


class Meter:
    """The histograms of a run, warm-up left out. Thread-safe; hand it batches, a sample at a time costs a lock each.

    Whoever runs the clock calls `cut` every second. With several processes each has a meter, sends what `cut_seconds`
    returns (`Latencies.encode`), and the one that reports takes it in with `merge`.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._lock = threading.Lock()
        self._total = {measure: Latencies() for measure in Measure}
        self._seconds: dict[tuple[int, Measure], Latencies] = {}

    def add(self, measure: Measure, seconds: Sequence[float], *, second: int | None = None) -> None:
        """Record times in seconds, for `second`, by default the present one."""
        if seconds:
            with self._lock:
                self._of(self.clock.second() if second is None else second, measure).add(seconds)

    def merge(self, second: int, measure: Measure, latencies: Latencies) -> None:
        """Record what another process measured."""
        with self._lock:
            self._of(second, measure).merge(latencies)

    def _of(self, second: int, measure: Measure) -> Latencies:
        return self._seconds.setdefault((second, measure), Latencies())

    def cut_seconds(self, up_to: float = math.inf) -> Mapping[tuple[int, Measure], Latencies]:
        """Return what was recorded since the last cut, of the seconds up to `up_to`."""
        with self._lock:
            found = {key: self._seconds.pop(key) for key in sorted(self._seconds) if key[0] <= up_to}
            for (_, measure), latencies in found.items():
                self._total[measure].merge(latencies)
        return found

    def cut(self, up_to: float = math.inf) -> Mapping[Measure, Latencies]:
        """Return the same, all seconds together; only measures with samples."""
        together: dict[Measure, Latencies] = {}
        for (_, measure), latencies in self.cut_seconds(up_to).items():
            if measure in together:
                together[measure].merge(latencies)
            else:
                together[measure] = latencies
        return together

    def totals(self) -> Mapping[Measure, Latencies]:
        """Return the whole run up to the last cut; only measures with samples. Call it when nothing cuts any more."""
        return {measure: latencies for measure, latencies in self._total.items() if latencies.count}


BySecond = Mapping[int, Mapping[str, int]]


class Tally:
    """Counts by name, as in `record.Counts`. Thread-safe; hand it batches."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._lock = threading.Lock()
        # Each by whether it is of the warm-up.
        self._totals: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        self._seconds: dict[bool, dict[int, Counter[str]]] = {False: {}, True: {}}
        self._changed = threading.Condition(self._lock)

    def add(self, *, warm: bool = False, second: int | None = None, **counts: int) -> None:
        """Add `counts` to `second`, by default the present one."""
        self.merge({self.clock.second() if second is None else second: counts}, warm=warm)

    def merge(self, seconds: BySecond, *, warm: bool = False) -> None:
        """Add counts by second and name."""
        with self._lock:
            for second, counts in seconds.items():
                self._seconds[warm].setdefault(second, Counter()).update(counts)
                self._totals[warm].update(counts)
            self._changed.notify_all()

    def cut(self, *, warm: bool = False, up_to: float = math.inf) -> dict[int, Counter[str]]:
        """Return what came since the last cut, of the seconds up to `up_to`."""
        with self._lock:
            seconds = self._seconds[warm]
            return {second: seconds.pop(second) for second in sorted(seconds) if second <= up_to}

    def totals(self, *, warm: bool = False) -> Mapping[str, int]:
        """Return the sums so far."""
        with self._lock:
            return Counter(self._totals[warm])

    def wait_until_seen(self, timeout_s: float) -> bool:
        """Wait until each event that was sent has come out, as result or failure; False if `timeout_s` ran out."""
        with self._lock:
            return self._changed.wait_for(self._all_seen, timeout_s)

    def _all_seen(self) -> bool:
        totals = self._totals[False]
        return totals["results"] + totals["failures"] >= totals["sent"]
