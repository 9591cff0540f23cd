"""How many dead letters a run left in a queue, told apart from those of others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from infertool.brokers.port import Broker, Browse
from infertool.errors import InfertoolError

_MEASURE_S: Final = 2.0
# A default ActiveMQ shows some hundred messages of a queue, and those behind them only to later browses.
_BROWSE_S: Final = 10.0
_LOOKS_S: Final = 10.0
_MOST_SHOWN: Final = 10_000
# Of a queue with at most this many messages every broker shows all, also of those that a selector finds.
_SURELY_SHOWN: Final = 200
_AGAIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Found:
    """How many dead letters of a run there are. Unless it is `exact`, those of others may be among them."""

    count: int
    exact: bool


class DeadLetterCount:
    """Counts from now on the letters whose header `event_id` begins with `run_id`."""

    def __init__(self, broker: Broker, queue: str, *, sent_to: str, run_id: str) -> None:
        self._broker = broker
        self._queue = queue
        self._sent_to = sent_to
        self._selector = f"event_id LIKE '{run_id}-%'"
        self._before = self._came() or 0

    def growth(self) -> int | None:
        """Return how many letters came, of anybody; None where the broker does not tell."""
        came = self._came()
        if came is not None:
            return max(came - self._before, 0)
        # Of a queue that never was a broker tells no depth either; of the one that events were sent to it does.
        return None if self._broker.measure(self._sent_to, _MEASURE_S) is None else 0

    def own(self, most: int, event_of: Callable[[str], bool]) -> Found | None:
        """Return of how many of the run's events there is a letter, of those whose id `event_of` is true for.

        `most` is how many there can be. None where the broker neither tells nor shows them.
        """
        growth = self.growth()
        if not most or growth == 0:
            return Found(0, exact=True)
        seen: set[str] = set()
        deadline = time.monotonic() + _LOOKS_S
        while True:
            shown = self._shown(most)
            ids = {message.headers["event_id"] for message in shown.messages}
            seen.update(filter(event_of, ids))
            all_shown = shown.depth is not None and shown.depth <= _SURELY_SHOWN
            if len(seen) >= most or all_shown or len(shown.messages) == growth:
                return Found(len(seen), exact=True)
            if time.monotonic() > deadline:
                break
            time.sleep(_AGAIN_S)
        if growth is None:
            return Found(len(seen), exact=False) if seen else None
        return Found(max(len(seen), min(growth, most)), exact=False)

    def _shown(self, most: int) -> Browse:
        limit = min(2 * most, _MOST_SHOWN)
        try:
            return self._broker.browse(self._queue, limit=limit, timeout_s=_BROWSE_S, selector=self._selector)
        except InfertoolError:
            return Browse([], complete=False, depth=None)

    def _came(self) -> int | None:
        depth = self._broker.measure(self._queue, _MEASURE_S)
        if depth is None:
            return None
        return depth.size if depth.enqueued is None else depth.enqueued
