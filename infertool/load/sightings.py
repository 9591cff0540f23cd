"""What came out at the other end: each event's first result or failure, and what came twice or out of order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from infertool.feed.arrival import Arrival
from infertool.load.epoch import Epoch
from infertool.load.latency import Measure, Meter
from infertool.load.tally import Tally

_FAILED: Final = "FAILED"
_GROWTH: Final = 65_536


class Sightings:
    """Takes arrivals from one thread. An event counts by its first sighting; events of others are ignored."""

    def __init__(self, epoch: Epoch, tally: Tally, meter: Meter, *, warmup_s: float) -> None:
        self._epoch = epoch
        self._tally = tally
        self._meter = meter
        self._warmup_s = warmup_s
        # By the event's number: a day of 500 a second are 43 MB.
        self._seen = bytearray()
        self._newest = -1
        self.last_at = 0.0

    def take(self, arrivals: Sequence[Arrival]) -> int:
        """Count `arrivals`. Return how many events were seen for the first time."""
        now = time.monotonic() - self._epoch.mono
        counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        latencies: list[float] = []
        for arrival in arrivals:
            known = self._read(arrival.payload)
            if known is None:
                continue
            (number, due), failed = known
            warm = due < self._warmup_s
            if self._is_new(number):
                counts[warm]["failures" if failed else "results"] += 1
                counts[warm]["out_of_order"] += number < self._newest
                self._newest = max(self._newest, number)
                if not warm:
                    latencies.append(now - due)
            else:
                counts[warm]["duplicates"] += 1
        return self._note(counts, latencies)

    def _read(self, payload: Any) -> tuple[tuple[int, float], bool] | None:
        if not isinstance(payload, dict):
            return None
        known = self._epoch.read(payload.get("event_id"))
        return known and (known, payload.get("status") == _FAILED)

    def _is_new(self, number: int) -> bool:
        if number >= len(self._seen):
            self._seen.extend(bytes(number - len(self._seen) + _GROWTH))
        new = not self._seen[number]
        self._seen[number] = 1
        return new

    def _note(self, counts: dict[bool, Counter[str]], latencies: Sequence[float]) -> int:
        first, second = 0, self._tally.clock.second()
        for warm, found in counts.items():
            if found:
                self.last_at = time.monotonic()
                self._tally.merge({second: found}, warm=warm)
                first += found["results"] + found["failures"]
        # After the counts, so that no second holds more times than events.
        self._meter.add(Measure.E2E, latencies, second=second)
        return first
