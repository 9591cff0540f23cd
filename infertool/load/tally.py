"""Counts of a run as it goes: sums so far, and by the second in which they fell. Warm-up is kept apart."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping

from infertool.load.epoch import Clock

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
