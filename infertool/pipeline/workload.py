"""How much is in work at once, from the settings."""

from __future__ import annotations

import os

from infertool.pipeline.tuning import AdaptiveLimit, BatchLimits
from infertool.settings import ConsumeSettings

# One subscription of a default ActiveMQ gives no more (facts: maxPageSize).
DEFAULT_WINDOW = 200


def concurrency(consume: ConsumeSettings) -> int:
    """Return how many calls of the model may run at once."""
    if consume.executor == "processes":
        return consume.workers or len(os.sched_getaffinity(0))
    return consume.max_concurrency if consume.concurrency == "auto" else consume.concurrency


def limit(consume: ConsumeSettings) -> AdaptiveLimit | None:
    """Return what adapts the number of calls, if anything does."""
    return AdaptiveLimit(consume.max_concurrency) if consume.concurrency == "auto" else None


def batches(consume: ConsumeSettings) -> BatchLimits | None:
    """Return what forms batches, if anything does."""
    if consume.batch_size == 1:
        return None
    return BatchLimits(consume.batch_size, consume.batch_wait_s, consume.target_latency_s)


def window(consume: ConsumeSettings, max_messages: int | None) -> int:
    """Return how many unsettled messages a run holds at most."""
    chosen = consume.window or max(DEFAULT_WINDOW, 2 * concurrency(consume) * consume.batch_size)
    return chosen if max_messages is None else min(chosen, max_messages)
