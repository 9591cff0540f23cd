"""Concurrency, batch size and inline runs, and how they adapt to what is measured. Pure: no thread, no clock.

Limits adapt by additive increase and multiplicative decrease (AIMD).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from infertool.consumer.batching.policy import AdaptiveBatches
from infertool.consumer.batching.port import Batches, FixedBatches
from infertool.consumer.batching.window import GrowingWindow
from infertool.settings import ConsumeSettings

# A mean call this many times slower than the best is a sign of calls that wait for each other.
TOLERANCE = 1.5
# A larger part of calls with failures that may be tried again is a sign of overload.
TOLERATED_FAILURES = 0.1
DECREASE = 0.75
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


# Pushes in batches that the window has room for: while one is unconfirmed, others are filled, sent and acked.
BATCHES_IN_PROGRESS = 6


# Default of consume.concurrency: for single events, and for batches, where one computes while the next one is prepared.
SINGLE_CALLS, BATCH_CALLS = 16, 2
# The size of batches that a window is planned for while nothing is measured.
PLANNED_SIZE = 64
# No call is to take a larger part of `consume.timeout_s`.
TIMEOUT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Workload:
    """How the model is called.

    At most `concurrency` calls run at once, or as many as `limit` says, each for at most `timeout_s`. With `batches`
    several events share a call.
    """

    concurrency: int
    timeout_s: float
    limit: AdaptiveLimit | None = None
    batches: Batches | None = None


def workload(consume: ConsumeSettings, *, in_batches: bool) -> Workload:
    """Return the workload that the settings ask for; `in_batches` is True if several events share a call."""
    limit = AdaptiveLimit(consume.max_concurrency) if consume.concurrency == "auto" else None
    calls = concurrency(consume, in_batches=in_batches)
    return Workload(
        calls,
        consume.timeout_s,
        limit,
        _batches(consume, calls) if in_batches else None,
    )


def _batches(consume: ConsumeSettings, workers: int) -> Batches:
    if consume.batch_size != "auto":
        # No more events than the window holds can come before a batch is settled.
        return FixedBatches(min(consume.batch_size, consume.window or consume.batch_size), consume.batch_wait_s)
    return AdaptiveBatches(
        consume.max_batch_size,
        workers=workers,
        target_s=consume.target_latency_s,
        longest_s=TIMEOUT_SHARE * consume.timeout_s,
    )


def asks_for_batches(consume: ConsumeSettings) -> bool:
    """Return True if the settings ask for batches whatever the model is."""
    return consume.target_latency_s > 0 if consume.batch_size == "auto" else consume.batch_size > 1


def concurrency(consume: ConsumeSettings, *, in_batches: bool) -> int:
    """Return the number of calls of the model that may run at once."""
    if consume.executor == "processes":
        return consume.workers or (consume.devices.count(",") + 1 if consume.devices else len(os.sched_getaffinity(0)))
    if consume.concurrency == "auto":
        return consume.max_concurrency
    return consume.concurrency or (BATCH_CALLS if in_batches else SINGLE_CALLS)


def planned(consume: ConsumeSettings, *, in_batches: bool) -> int:
    """Return the number of events that are in calls of the model at once, as far as it is known beforehand."""
    size = min(PLANNED_SIZE, consume.max_batch_size) if consume.batch_size == "auto" else consume.batch_size
    return concurrency(consume, in_batches=in_batches) * (size if in_batches else 1)


# A window that adapts holds at most so many times the largest batches that the workers may have: one batch is in a
# call, one waits for it, and one is on its way to Phoenix and back.
LARGEST_WINDOW = 3


def growing_window(consume: ConsumeSettings, begin: int, max_messages: int | None) -> GrowingWindow:
    """Return the window of a consumer in batches; it stays as it is where the settings say how large it is."""
    calls = concurrency(consume, in_batches=True)
    largest = LARGEST_WINDOW * calls * consume.max_batch_size
    most = begin if consume.window else max(begin, largest if max_messages is None else min(largest, max_messages))
    return GrowingWindow(begin, most=most, workers=calls)


# Weights order what waits for workers: beside what is in progress, as much again is to be next.
NEXT = 2


def window(
    consume: ConsumeSettings,
    push_batch: int,
    max_messages: int | None,
    max_unacked: int,
    *,
    in_batches: bool,
    weighted: bool = False,
) -> int:
    """Return the largest number of unsettled messages of a run; with `weighted` queues, of those in progress.

    `max_unacked` is the broker's.
    """
    in_progress = planned(consume, in_batches=in_batches) * (NEXT if weighted else 1)
    # Servers that share a queue share it fairly if none holds what it does not work on.
    usual = in_progress if consume.reply else max(max_unacked, 2 * in_progress, BATCHES_IN_PROGRESS * push_batch)
    chosen = consume.window or usual
    return chosen if max_messages is None else min(chosen, max_messages)
