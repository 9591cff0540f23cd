"""How much is in work at once, from the settings."""

from __future__ import annotations

import os
from dataclasses import dataclass

from infertool.pipeline.tuning import AdaptiveLimit, BatchLimits
from infertool.settings import ConsumeSettings

# One subscription of a default ActiveMQ gives no more (facts: maxPageSize).
DEFAULT_WINDOW = 200
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


def window(consume: ConsumeSettings, push_batch: int, max_messages: int | None) -> int:
    """Return how many unsettled messages a run holds at most."""
    in_work = 2 * concurrency(consume) * consume.batch_size
    chosen = consume.window or max(DEFAULT_WINDOW, in_work, BATCHES_UNDER_WAY * push_batch)
    return chosen if max_messages is None else min(chosen, max_messages)
