"""Counts and latencies of a running load run, by second; the clock that numbers the seconds. Warm-up is separate."""

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
BySecond = Mapping[int, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class RunClock:
    """The start of a run on the monotonic clock, which the processes of a machine share, and on the wall clock.

    Times are in seconds. Each run has its own `run_id`, even with the same seed: results of earlier runs do not count.
    """

    run_id: str
    mono: float
    wall: float

    def event_id(self, number: int, due: float) -> str:
        """Return the id of event `number`, which is due `due` seconds (in whole microseconds) after the start."""
        return f"{self.run_id}-{number}-{round(due * 1e6)}"

    def read(self, event_id: object) -> tuple[int, float] | None:
        """Return the number and the due time in an event id of this run; None for any other value."""
        if not isinstance(event_id, str) or not event_id.startswith(self.run_id):
            return None
        match = _PLACES.fullmatch(event_id, len(self.run_id))
        return match and (int(match[1]), int(match[2]) / 1e6)


def new_run_id() -> str:
    """Return a new run id, with which the ids of the run's events begin."""
    return f"lg{secrets.token_hex(4)}"


def start_clock(delay_s: float, run_id: str | None = None) -> RunClock:
    """Return the clock of a run that starts in `delay_s` seconds."""
    return RunClock(run_id or new_run_id(), time.monotonic() + delay_s, time.time() + delay_s)


class Clock:
    """Numbers the seconds of a run: 0 starts at the end of the warm-up, seconds of the warm-up are negative."""

    def __init__(self) -> None:
        self._zero = time.monotonic()

    def start(self, run_clock: RunClock, warmup_s: float) -> None:
        """Set the start of the run and the length of its warm-up."""
        self._zero = run_clock.mono + warmup_s

    def since_zero(self) -> float:
        """Return the seconds since the end of the warm-up."""
        return time.monotonic() - self._zero

    def second(self, at: float | None = None) -> int:
        """Return the second of `at` (monotonic clock), by default of the current time."""
        return math.floor(self.since_zero() if at is None else at - self._zero)


class Measure(StrEnum):
    """A measured latency.

    `SLIP`: from the intended send to the actual one; the generator's own lateness.
    `SEND`: from the actual send to the broker's receipt; with --confirm.
    `E2E`: from the *intended* send to the arrival at the dashboard's topic; with --e2e.
    `REPLY`: from the *intended* send to the reply, of those that are results; with --rpc.
    `HTTP`: from the *intended* send to the response, of those with a status of 2xx; with --http.
    """

    SLIP = "slip"
    SEND = "send"
    E2E = "e2e"
    REPLY = "reply"
    HTTP = "http"


class Meter:
    """Histograms of a run's latencies, without the warm-up. Thread-safe; add batches, since each call takes a lock.

    `Seconds` calls `cut` every second. Each of several load processes has its own meter and sends what `cut_seconds`
    returns, encoded; the reporting process adds it with `merge`.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._lock = threading.Lock()
        self._total = {measure: Latencies() for measure in Measure}
        self._seconds: dict[tuple[int, Measure], Latencies] = {}

    def add(self, measure: Measure, seconds: Sequence[float], *, second: int | None = None) -> None:
        """Record times (in seconds) for `second`, by default the current one."""
        if seconds:
            with self._lock:
                self._of(self.clock.second() if second is None else second, measure).add(seconds)

    def merge(self, second: int, measure: Measure, latencies: Latencies) -> None:
        """Add the latencies that another process recorded for `second`."""
        with self._lock:
            self._of(second, measure).merge(latencies)

    def _of(self, second: int, measure: Measure) -> Latencies:
        return self._seconds.setdefault((second, measure), Latencies())

    def cut_seconds(self, up_to: float = math.inf) -> Mapping[tuple[int, Measure], Latencies]:
        """Return the latencies recorded since the last cut, for seconds up to `up_to`."""
        with self._lock:
            found = {key: self._seconds.pop(key) for key in sorted(self._seconds) if key[0] <= up_to}
            for (_, measure), latencies in found.items():
                self._total[measure].merge(latencies)
        return found

    def copies(self) -> Mapping[Measure, Latencies]:
        """Return copies of the same as `totals`, at any time."""
        with self._lock:
            return {measure: latencies.copy() for measure, latencies in self._total.items() if latencies.count}

    def cut(self, up_to: float = math.inf) -> Mapping[Measure, Latencies]:
        """Return the same, merged over the seconds; only measures with samples."""
        together: dict[Measure, Latencies] = {}
        for (_, measure), latencies in self.cut_seconds(up_to).items():
            if measure in together:
                together[measure].merge(latencies)
            else:
                together[measure] = latencies
        return together

    def totals(self) -> Mapping[Measure, Latencies]:
        """Return the whole run up to the last cut; only measures with samples. Call it after the last cut."""
        return {measure: latencies for measure, latencies in self._total.items() if latencies.count}


class Tally:
    """Counts by name, as in `record.Counts`, and by second. Thread-safe; add batches."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._lock = threading.Lock()
        # Keys: True for the warm-up, False for the counted part.
        self._totals: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        self._seconds: dict[bool, dict[int, Counter[str]]] = {False: {}, True: {}}
        self._changed = threading.Condition(self._lock)

    def add(self, *, warm: bool = False, second: int | None = None, **counts: int) -> None:
        """Add `counts` to `second`, by default the current one."""
        self.merge({self.clock.second() if second is None else second: counts}, warm=warm)

    def merge(self, seconds: BySecond, *, warm: bool = False) -> None:
        """Add counts by second and name."""
        with self._lock:
            for second, counts in seconds.items():
                self._seconds[warm].setdefault(second, Counter()).update(counts)
                self._totals[warm].update(counts)
            self._changed.notify_all()

    def cut(self, *, warm: bool = False, up_to: float = math.inf) -> dict[int, Counter[str]]:
        """Return the counts added since the last cut, for seconds up to `up_to`."""
        with self._lock:
            seconds = self._seconds[warm]
            return {second: seconds.pop(second) for second in sorted(seconds) if second <= up_to}

    def totals(self, *, warm: bool = False) -> Mapping[str, int]:
        """Return the sums so far."""
        with self._lock:
            return Counter(self._totals[warm])

    def wait_until_seen(self, timeout_s: float) -> bool:
        """Wait until each sent event was seen as a result or failure. False after `timeout_s`."""
        with self._lock:
            return self._changed.wait_for(self._all_seen, timeout_s)

    def _all_seen(self) -> bool:
        totals = self._totals[False]
        return totals["results"] + totals["failures"] >= totals["sent"]
