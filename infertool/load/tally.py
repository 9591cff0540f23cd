"""Counts of a run as it goes: sums so far, and what came since the last cut. Warm-up is kept apart."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class Tally:
    """Counts by name, as in `record.Counts`. Thread-safe; hand it batches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Each by whether it is of the warm-up.
        self._totals: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        self._interval: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        self._changed = threading.Condition(self._lock)

    def add(self, *, warm: bool = False, **counts: int) -> None:
        """Add `counts`."""
        self.merge(counts, warm=warm)

    def merge(self, counts: Mapping[str, int], *, warm: bool = False) -> None:
        """Add counts by name."""
        with self._lock:
            self._interval[warm].update(counts)
            self._totals[warm].update(counts)
            self._changed.notify_all()

    def cut(self, *, warm: bool = False) -> Counter[str]:
        """Return what came since the last cut."""
        with self._lock:
            interval, self._interval[warm] = self._interval[warm], Counter()
            return interval

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
