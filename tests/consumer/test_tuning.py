"""The numbers that adapt, on models of models: no clock, no threads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import mean

import pytest

from infertool.consumer.batching.policy import AdaptiveBatches
from infertool.consumer.batching.port import FixedBatches
from infertool.consumer.tuning import (
    BATCH_CALLS,
    LONGEST_PAUSE_S,
    PLANNED_SIZE,
    PROBE_AFTER,
    QUICK_S,
    SHORTEST_PAUSE_S,
    SINGLE_CALLS,
    TOLERANCE,
    AdaptiveLimit,
    InlinePolicy,
    window,
    workload,
)
from infertool.settings.tree import ConsumeSettings

HIGHEST = 100
BASE_S = 0.1


def run(limit: AdaptiveLimit, seconds: Callable[[int], float], calls: int, **flags: bool) -> list[int]:
    """Have so many calls take as long as `seconds` says for the limit; return the limits on the way."""
    given = {"failed": False, "full": True, **flags}
    values = []
    for _ in range(calls):
        limit.measured(seconds(limit.value), **given)
        values.append(limit.value)
    return values


def slots(count: int) -> Callable[[int], float]:
    """Return the latency of a model that works on `count` calls at once, the others wait."""
    return lambda running: BASE_S * max(1.0, running / count)


def test_it_rises_to_the_top_while_latency_stays() -> None:
    limit = AdaptiveLimit(HIGHEST)
    assert run(limit, lambda _: BASE_S, 2000)[-1] == HIGHEST


@pytest.mark.parametrize("count", [1, 2, 8, 20])
def test_it_settles_near_what_the_model_can_do_at_once(count: int) -> None:
    late = run(AdaptiveLimit(HIGHEST), slots(count), 20_000)[10_000:]
    assert count * 0.4 <= mean(late) <= count * TOLERANCE * 1.3 + 1
    assert max(late) <= count * TOLERANCE + 3


def test_it_follows_a_model_that_slows_down_and_recovers() -> None:
    limit = AdaptiveLimit(HIGHEST)
    run(limit, slots(40), 20_000)
    slow = mean(run(limit, slots(5), 20_000)[-5000:])
    fast = mean(run(limit, slots(40), 60_000)[-5000:])
    assert slow < 10
    assert fast > 25


def test_a_model_that_is_slower_for_good_is_not_taken_for_an_overload() -> None:
    limit = AdaptiveLimit(HIGHEST)
    run(limit, lambda _: BASE_S, 2000)
    assert max(run(limit, lambda _: 3 * BASE_S, 2 * HIGHEST * PROBE_AFTER)[-5000:]) == HIGHEST


def test_it_goes_down_when_calls_fail() -> None:
    limit = AdaptiveLimit(HIGHEST)
    run(limit, lambda _: BASE_S, 2000)
    assert run(limit, lambda _: BASE_S, 2000, failed=True)[-1] == 1


def test_it_does_not_rise_unless_it_is_reached() -> None:
    limit = AdaptiveLimit(HIGHEST)
    assert set(run(limit, lambda _: BASE_S, 500, full=False)) == {4}


def test_it_stays_within_its_bounds() -> None:
    assert set(run(AdaptiveLimit(1), lambda _: BASE_S, 500)) == {1}


def test_a_model_is_quick_until_it_is_not() -> None:
    inline_policy = InlinePolicy()
    for now in range(1000):
        assert inline_policy.allows(now)
        inline_policy.measured(100, 100 * QUICK_S / 2, now)
    for _ in range(20):
        inline_policy.measured(100, 100 * QUICK_S * 2, 1000)
    assert not inline_policy.allows(1000)
    assert inline_policy.allows(1000 + LONGEST_PAUSE_S)


def test_a_lost_turn_of_the_thread_is_no_slow_model() -> None:
    inline_policy = InlinePolicy()
    for now in range(1000):
        inline_policy.measured(100, 100 * QUICK_S / 10, now)
        if now % 10 == 0:
            inline_policy.measured(1, 0.005, now)
        assert inline_policy.allows(now)


def test_a_slow_model_is_tried_less_and_less_often() -> None:
    inline_policy, now = InlinePolicy(), 0.0
    tries = []
    while now < 1000:
        if inline_policy.allows(now):
            tries.append(now)
            inline_policy.refuted(now)
        now += 0.5
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits[:8] == [SHORTEST_PAUSE_S * 2**n for n in range(7)] + [LONGEST_PAUSE_S]
    assert set(waits[7:]) == {LONGEST_PAUSE_S}


def test_a_model_that_is_quick_again_gets_its_next_chance_soon() -> None:
    inline_policy = InlinePolicy()
    for now in (0, 100, 200):
        inline_policy.refuted(now)
    inline_policy.measured(1, QUICK_S / 2, 300)
    inline_policy.refuted(301)
    assert inline_policy.allows(301 + SHORTEST_PAUSE_S)


def test_a_consumer_that_replies_holds_no_more_than_it_works_on() -> None:
    for consume, expected in (
        (ConsumeSettings(reply=True, concurrency=1), 1),
        (ConsumeSettings(reply=True, concurrency=16), 16),
        (ConsumeSettings(reply=True, executor="processes", workers=3), 3),
        (ConsumeSettings(reply=True, concurrency="auto", max_concurrency=40), 40),
        (ConsumeSettings(reply=True, concurrency=2, window=50), 50),
        (ConsumeSettings(concurrency=2), 200),
    ):
        assert window(consume, 1, None, 200, in_batches=False) == expected


def test_a_window_holds_what_batches_need() -> None:
    for consume, expected in (
        (ConsumeSettings(reply=True, concurrency=2, batch_size=8), 16),
        (ConsumeSettings(reply=True, batch_size=8), 8 * BATCH_CALLS),
        (ConsumeSettings(reply=True), PLANNED_SIZE * BATCH_CALLS),
        (ConsumeSettings(reply=True, max_batch_size=4), 4 * BATCH_CALLS),
        (ConsumeSettings(batch_size=100, concurrency=3), 600),
        (ConsumeSettings(window=50), 50),
    ):
        assert window(consume, 1, None, 200, in_batches=True) == expected


@pytest.mark.parametrize(
    ("consume", "kind", "calls"),
    [
        (ConsumeSettings(), AdaptiveBatches, BATCH_CALLS),
        (ConsumeSettings(batch_size=8, concurrency=5), FixedBatches, 5),
        (ConsumeSettings(executor="processes", workers=3), AdaptiveBatches, 3),
    ],
)
def test_what_calls_the_model_in_batches(consume: ConsumeSettings, kind: type, calls: int) -> None:
    found = workload(consume, in_batches=True)
    assert (type(found.batches), found.concurrency) == (kind, calls)
    assert workload(consume, in_batches=False).batches is None


@pytest.mark.parametrize(("window", "size"), [(4, 4), (64, 64), (100, 64), (0, 64)])
def test_a_batch_is_full_when_it_holds_the_window(window: int, size: int) -> None:
    batches = workload(ConsumeSettings(batch_size=64, window=window), in_batches=True).batches
    assert isinstance(batches, FixedBatches)
    assert batches.size == size


def test_single_events_get_the_usual_number_of_threads() -> None:
    assert workload(ConsumeSettings(), in_batches=False).concurrency == SINGLE_CALLS
