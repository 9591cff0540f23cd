"""Numbers that adapt to what is measured, by additive increase and multiplicative decrease (AIMD).

Pure: nothing here knows a clock or a thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from infertool.settings import ConsumeSettings

# A call this much slower than the best is taken for one that waited behind others.
TOLERANCE = 1.5
# So many failures among calls that may be tried again are taken for an overload.
TOLERATED_FAILURES = 0.1
DECREASE = 0.75
# A batch grows while it takes less than this part of its target, so that it does not swing about the target.
HEADROOM = 0.9
# A limit is judged by this many calls for each that it allows, but by no fewer than these.
CALLS_PER_SLOT = 2
FEWEST_CALLS = 10
# To wake a worker takes about as long as this: a model that takes less is asked by whoever brings events. Seconds.
QUICK_S = 50e-6
# How long a model that was not quick is left to workers before it gets another chance; doubled each time. Seconds.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 64.0
# The best latency is measured anew after so many judgements: a model may have become slower or faster for good.
PROBE_AFTER = 100


@dataclass(slots=True)
class _Calls:
    """What is judged together."""

    count: int = 0
    failures: int = 0
    spent_s: float = 0.0
    full: bool = False


class AdaptiveLimit:
    """How many calls may run at once: more while latency stays near its best, fewer when it rises or calls fail.

    It doubles up to the first decrease, and grows by one from then on.
    """

    def __init__(self, highest: int) -> None:
        self.value = min(4, highest)
        self._highest = highest
        self._starting = True
        self._best_s: float | None = None
        self._judgements = 0
        self._calls = _Calls()

    def measured(self, seconds: float, *, failed: bool, full: bool) -> bool:
        """Take in a call; `full` says that the limit was reached meanwhile. True when `value` has changed."""
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
    """Whether a model answers so quickly that it needs no worker. It may be tried, until it turns out to be slow.

    Only calls without a worker count: those of many workers wait for the interpreter lock, too.
    """

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._pause_s = SHORTEST_PAUSE_S
        self._slow_until = 0.0

    def allows(self, now: float) -> bool:
        """Tell whether to ask the model without a worker at `now`, which is in monotonic seconds."""
        return now >= self._slow_until

    def measured(self, count: int, seconds: float, now: float) -> None:
        """Take in `count` events that together kept the model busy for `seconds`."""
        # A few events weigh little: when the thread lost its turn among them, they seem slow.
        self._mean_s += min(0.2, 0.002 * count) * (seconds / count - self._mean_s)
        if self._mean_s > QUICK_S:
            self.refuted(now)
        else:
            self._pause_s = SHORTEST_PAUSE_S

    def refuted(self, now: float) -> None:
        """Leave the model to workers for a while."""
        self._slow_until = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._mean_s = 0.0


class BatchLimits:
    """How many events a batch takes, and how long it waits for them, in seconds.

    With a target, a batch that took longer than it makes the next ones smaller, a full one that took clearly less makes
    them larger by one; and a batch waits no longer than the target leaves beside the model's time.
    """

    def __init__(self, largest: int, longest_wait_s: float, target_s: float = 0.0) -> None:
        self.adapts = target_s > 0
        self._largest = largest
        self._longest_wait_s = longest_wait_s
        self._target_s = target_s
        self.size = min(4, largest) if self.adapts else largest
        self.wait_s = min(longest_wait_s, target_s / 2) if self.adapts else longest_wait_s
        self._usual_s: float | None = None

    def measured(self, count: int, seconds: float) -> bool:
        """Take in a batch of `count` events that kept the model busy for `seconds`. True when `size` has changed."""
        if not self.adapts:
            return False
        before = self.size
        if seconds > self._target_s:
            self.size = max(1, int(self.size * DECREASE))
        elif count >= self.size and seconds < HEADROOM * self._target_s:
            self.size = min(self._largest, self.size + 1)
        self._usual_s = seconds if self._usual_s is None else self._usual_s + 0.2 * (seconds - self._usual_s)
        self.wait_s = min(self._longest_wait_s, max(0.0, self._target_s - self._usual_s))
        return self.size != before


# Pushes in batches: while one waits for its proof, others are filled, sent and acknowledged.
BATCHES_UNDER_WAY = 6


@dataclass(frozen=True, slots=True)
class Workload:
    """How many calls of the model may run at once, for how long, and what adapts and joins them, if anything does."""

    concurrency: int
    timeout_s: float
    limit: AdaptiveLimit | None = None
    batches: BatchLimits | None = None


def workload(consume: ConsumeSettings) -> Workload:
    """Return what the settings ask for."""
    limit = AdaptiveLimit(consume.max_concurrency) if consume.concurrency == "auto" else None
    batches = BatchLimits(consume.batch_size, consume.batch_wait_s, consume.target_latency_s)
    return Workload(concurrency(consume), consume.timeout_s, limit, batches if consume.batch_size > 1 else None)


def concurrency(consume: ConsumeSettings) -> int:
    """Return how many calls of the model may run at once."""
    if consume.executor == "processes":
        return consume.workers or len(os.sched_getaffinity(0))
    return consume.max_concurrency if consume.concurrency == "auto" else consume.concurrency


def window(consume: ConsumeSettings, push_batch: int, max_messages: int | None, max_unacked: int) -> int:
    """Return how many unsettled messages a run holds at most; `max_unacked` is the broker's."""
    in_work = 2 * concurrency(consume) * consume.batch_size
    chosen = consume.window or max(max_unacked, in_work, BATCHES_UNDER_WAY * push_batch)
    return chosen if max_messages is None else min(chosen, max_messages)
