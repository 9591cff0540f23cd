"""Concurrency, batch size and inline runs, and how they adapt to what is measured. Pure: no thread, no clock.

Limits adapt by additive increase and multiplicative decrease (AIMD).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from infertool.settings import ConsumeSettings

# A mean call this many times slower than the best is a sign of calls that wait for each other.
TOLERANCE = 1.5
# A larger part of calls with failures that may be tried again is a sign of overload.
TOLERATED_FAILURES = 0.1
DECREASE = 0.75
# A batch grows only while it takes less than this part of its target, so that its size does not swing.
HEADROOM = 0.9
# A limit is judged by this many calls for each one that it allows at a time, and by at least FEWEST_CALLS.
CALLS_PER_SLOT = 2
FEWEST_CALLS = 10
# To wake a worker takes about this time. A model that takes less runs inline: on the thread that brings the events.
# Seconds.
QUICK_S = 50e-6
# Time for which a model that was not quick is left to workers before it runs inline again; doubled each time. Seconds.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 64.0
# The best latency is measured anew after this many judgements: a model may have become slower or faster for good.
PROBE_AFTER = 100


@dataclass(slots=True)
class _Calls:
    """Calls that are judged together. `full` is True if the limit was reached meanwhile."""

    count: int = 0
    failures: int = 0
    spent_s: float = 0.0
    full: bool = False


class AdaptiveLimit:
    """The number of calls that may run at once. It rises while latency stays near its best, else it falls.

    It doubles up to the first decrease, and rises by one from then on. Failed calls lower it, too.
    """

    def __init__(self, highest: int) -> None:
        self.value = min(4, highest)
        self._highest = highest
        self._starting = True
        self._best_s: float | None = None
        self._judgements = 0
        self._calls = _Calls()

    def measured(self, seconds: float, *, failed: bool, full: bool) -> bool:
        """Add a call; `full` is True if the limit was reached meanwhile. Return True if `value` has changed."""
        calls = self._calls
        calls.count += 1
        calls.failures += failed
        calls.spent_s += seconds
        calls.full = calls.full or full
        if calls.count < max(FEWEST_CALLS, CALLS_PER_SLOT * self.value):
            return False
        before = self.value
        self._judge(calls, calls.spent_s / calls.count)
        self._calls = _Calls()
        return self.value != before

    def _judge(self, calls: _Calls, mean_s: float) -> None:
        self._judgements += 1
        if self._judgements % PROBE_AFTER == 0:
            self.value = max(1, self.value // 2)
            self._best_s = None
            return
        self._best_s = mean_s if self._best_s is None else min(self._best_s, mean_s)
        if mean_s > TOLERANCE * self._best_s or calls.failures > TOLERATED_FAILURES * calls.count:
            self._starting = False
            self.value = max(1, int(self.value * DECREASE))
        elif calls.full:
            self.value = min(self._highest, self.value * 2 if self._starting else self.value + 1)


class InlinePolicy:
    """Decides whether a model is quick enough to run inline: on the thread that brings the events, without a worker.

    A model may run inline until it turns out to be slow. Only inline calls are measured: calls of several workers also
    wait for the interpreter lock.
    """

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._pause_s = SHORTEST_PAUSE_S
        self._slow_until = 0.0

    def allows(self, now: float) -> bool:
        """Return True if the model may run inline at `now` (monotonic, seconds)."""
        return now >= self._slow_until

    def measured(self, count: int, seconds: float, now: float) -> None:
        """Add `count` events for which the model was busy for `seconds` in all."""
        # A few events weigh little: they seem slow if the scheduler stopped the thread meanwhile.
        self._mean_s += min(0.2, 0.002 * count) * (seconds / count - self._mean_s)
        if self._mean_s > QUICK_S:
            self.refuted(now)
        else:
            self._pause_s = SHORTEST_PAUSE_S

    def refuted(self, now: float) -> None:
        """Leave the model to workers for a while: it was slow."""
        self._slow_until = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._mean_s = 0.0


class BatchLimits:
    """The largest number of events in a batch, and how long a batch waits for them, in seconds.

    With a target in seconds, both adapt: a batch that took longer makes the next ones smaller, a full one that took
    clearly less makes them larger by one, and a batch waits only for the time that the model leaves of the target.
    """

    def __init__(self, largest: int, longest_wait_s: float, target_s: float = 0.0) -> None:
        self.adapts = target_s > 0
        self._largest = largest
        self._longest_wait_s = longest_wait_s
        self._target_s = target_s
        self.size = min(4, largest) if self.adapts else largest
        self.wait_s = min(longest_wait_s, target_s / 2) if self.adapts else longest_wait_s
        self._mean_s: float | None = None

    def measured(self, count: int, seconds: float) -> bool:
        """Add a batch of `count` events that took the model `seconds`. Return True if `size` has changed."""
        if not self.adapts:
            return False
        before = self.size
        if seconds > self._target_s:
            self.size = max(1, int(self.size * DECREASE))
        elif count >= self.size and seconds < HEADROOM * self._target_s:
            self.size = min(self._largest, self.size + 1)
        self._mean_s = seconds if self._mean_s is None else self._mean_s + 0.2 * (seconds - self._mean_s)
        self.wait_s = min(self._longest_wait_s, max(0.0, self._target_s - self._mean_s))
        return self.size != before


# Pushes in batches that the window has room for: while one is unconfirmed, others are filled, sent and acked.
BATCHES_IN_PROGRESS = 6


@dataclass(frozen=True, slots=True)
class Workload:
    """How the model is called.

    At most `concurrency` calls run at once, or as many as `limit` says, each for at most `timeout_s`. With `batches`
    several events share a call.
    """

    concurrency: int
    timeout_s: float
    limit: AdaptiveLimit | None = None
    batches: BatchLimits | None = None


def workload(consume: ConsumeSettings) -> Workload:
    """Return the workload that the settings ask for."""
    limit = AdaptiveLimit(consume.max_concurrency) if consume.concurrency == "auto" else None
    batches = BatchLimits(consume.batch_size, consume.batch_wait_s, consume.target_latency_s)
    return Workload(concurrency(consume), consume.timeout_s, limit, batches if consume.batch_size > 1 else None)


def concurrency(consume: ConsumeSettings) -> int:
    """Return the number of calls of the model that may run at once."""
    if consume.executor == "processes":
        return consume.workers or len(os.sched_getaffinity(0))
    return consume.max_concurrency if consume.concurrency == "auto" else consume.concurrency


def window(consume: ConsumeSettings, push_batch: int, max_messages: int | None, max_unacked: int) -> int:
    """Return the largest number of unsettled messages of a run; `max_unacked` is the broker's."""
    in_progress = concurrency(consume) * consume.batch_size
    # Servers that share a queue share it fairly if none holds what it does not work on.
    usual = in_progress if consume.reply else max(max_unacked, 2 * in_progress, BATCHES_IN_PROGRESS * push_batch)
    chosen = consume.window or usual
    return chosen if max_messages is None else min(chosen, max_messages)
