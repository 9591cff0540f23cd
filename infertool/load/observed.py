"""Observed results: each event's first result or failure, duplicates, events out of order, and dead letters."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infertool.brokers.port import Broker, Browse, Browsing, Match
from infertool.channels.event import ChannelEvent
from infertool.errors import InfertoolError
from infertool.load.tally import Measure, Meter, RunClock, Tally

_MEASURE_S: Final = 2.0
# A broker may show only the first messages of a queue, and further ones only to later browses.
_BROWSE_S: Final = 10.0
_LOOKS_S: Final = 10.0
_MOST_SHOWN: Final = 10_000
_AGAIN_S: Final = 0.2
_FAILED: Final = "FAILED"
_GROWTH: Final = 65_536


@dataclass(frozen=True, slots=True)
class OwnDeadLetters:
    """The number of a run's dead letters. Unless `exact`, it may include those of other producers."""

    count: int
    exact: bool


class DeadLetterCount:
    """Counts the dead letters, from its construction on, whose header `event_id` begins with `run_id`."""

    def __init__(self, broker: Broker, queue: str, *, sent_to: str, run_id: str) -> None:
        self._broker = broker
        self._queue = queue
        self._sent_to = sent_to
        self._own = Match(prefixes={"event_id": f"{run_id}-"}) if broker.capabilities.selectors else None
        self._before = self._came() or 0

    def growth(self) -> int | None:
        """Return how many letters were added, of all producers; None if the broker does not report it."""
        came = self._came()
        if came is not None:
            return max(came - self._before, 0)
        # A broker reports no depth for a queue that never existed; for the queue that events were sent to it does.
        return None if self._broker.measure(self._sent_to, _MEASURE_S) is None else 0

    def own(self, most: int, event_of: Callable[[str], bool]) -> OwnDeadLetters | None:
        """Return for how many of the run's events there is a letter. Letters count if `event_of` is true for their id.

        There are at most `most`. None if the broker neither counts nor shows them.
        """
        growth = self.growth()
        if not most or growth == 0:
            return OwnDeadLetters(0, exact=True)
        seen: set[str] = set()
        deadline = time.monotonic() + _LOOKS_S
        while True:
            shown = self._shown(most)
            ids = {message.native.get("event_id") or "" for message in shown.messages}
            seen.update(filter(event_of, ids))
            all_shown = shown.depth is not None and shown.depth <= self._surely_shown()
            if len(seen) >= most or all_shown or len(shown.messages) == growth:
                return OwnDeadLetters(len(seen), exact=True)
            if time.monotonic() > deadline:
                break
            time.sleep(_AGAIN_S)
        if growth is None:
            return OwnDeadLetters(len(seen), exact=False) if seen else None
        return OwnDeadLetters(max(len(seen), min(growth, most)), exact=False)

    def _surely_shown(self) -> float:
        """Return up to which depth a browse shows all of a queue, also of those that a selector finds."""
        can = self._broker.capabilities
        if can.browse is Browsing.FULL:
            return math.inf
        return can.selector_reach or 0

    def _shown(self, most: int) -> Browse:
        limit = min(2 * most, _MOST_SHOWN)
        try:
            return self._broker.browse(self._queue, limit=limit, timeout_s=_BROWSE_S, selector=self._own)
        except InfertoolError:
            return Browse([], complete=False, depth=None)

    def _came(self) -> int | None:
        depth = self._broker.measure(self._queue, _MEASURE_S)
        if depth is None:
            return None
        return depth.size if depth.enqueued is None else depth.enqueued


class Observed:
    """Counts results and failures, called from one thread. An event counts once; events of other runs are ignored."""

    def __init__(self, run_clock: RunClock, tally: Tally, meter: Meter, *, warmup_s: float) -> None:
        self._run_clock = run_clock
        self._tally = tally
        self._meter = meter
        self._warmup_s = warmup_s
        # One byte an event, indexed by its number: a day of 500 events a second takes 43 MB.
        self._seen = bytearray()
        self._newest = -1
        self.last_at = 0.0

    def take(self, arrivals: Sequence[ChannelEvent]) -> int:
        """Count channel events. Return how many events of the run were seen for the first time."""
        now = time.monotonic() - self._run_clock.mono
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
        known = self._run_clock.read(payload.get("event_id"))
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
        # After the counts, so that no second has more latencies than events.
        self._meter.add(Measure.E2E, latencies, second=second)
        return first
