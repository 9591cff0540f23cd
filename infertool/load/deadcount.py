"""How many dead letters came to a queue since a moment, as far as the broker counts."""

from __future__ import annotations

from infertool.brokers.port import Broker

_MEASURE_S = 2.0


class DeadLetterCount:
    """Counts from now on. None where the broker does not tell a queue's depth. Dead letters of others count, too."""

    def __init__(self, broker: Broker, queue: str, *, sent_to: str) -> None:
        self._broker = broker
        self._queue = queue
        self._sent_to = sent_to
        self._before = self._came() or 0

    def __call__(self) -> int | None:
        """Return how many came since."""
        came = self._came()
        if came is not None:
            return max(came - self._before, 0)
        # Of a queue that never was a broker tells no depth either; of the one that events were sent to it does.
        return None if self._broker.measure(self._sent_to, _MEASURE_S) is None else 0

    def _came(self) -> int | None:
        depth = self._broker.measure(self._queue, _MEASURE_S)
        if depth is None:
            return None
        return depth.size if depth.enqueued is None else depth.enqueued
