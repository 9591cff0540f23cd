"""The numbers that adapt, on models of models: no clock, no threads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import mean

import pytest

from infertool.consumer.tuning import (
    LONGEST_PAUSE_S,
    PROBE_AFTER,
    QUICK_S,
    SHORTEST_PAUSE_S,
    TOLERANCE,
    AdaptiveLimit,
    BatchLimits,
    InlinePolicy,
    window,
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


def batches(limits: BatchLimits, seconds: Callable[[int], float], count: int, *, waiting: int = 10_000) -> list[float]:
    """Have so many batches take as long as `seconds` says for their size; return how long each took, wait included."""
    spent = []
    for _ in range(count):
        size = min(limits.size, waiting)
        wait_s = 0.0 if size == limits.size else limits.wait_s
        limits.measured(size, seconds(size))
        spent.append(wait_s + seconds(size))
    return spent


@pytest.mark.parametrize(("fixed_s", "each_s", "best"), [(0.005, 0.001, 45), (0.02, 0.01, 3), (0.0, 0.05, 1)])
def test_batches_grow_to_what_the_target_allows(fixed_s: float, each_s: float, best: int) -> None:
    limits = BatchLimits(1000, 0.01, target_s=0.05)
    spent = batches(limits, lambda size: fixed_s + each_s * size, 1000)[500:]
    assert 0.8 * best - 1 <= limits.size <= best
    assert max(spent) <= 0.0501


def test_a_batch_waits_no_longer_than_the_target_leaves() -> None:
    limits = BatchLimits(64, 0.1, target_s=0.05)
    spent = batches(limits, lambda size: 0.02 + 0.001 * size, 200, waiting=3)
    assert max(spent[20:]) <= 0.0501
    assert limits.wait_s == pytest.approx(0.027, abs=0.001)


def test_a_target_that_cannot_be_met_gives_single_events_without_a_wait() -> None:
    limits = BatchLimits(64, 0.1, target_s=0.05)
    batches(limits, lambda _: 0.2, 100)
    assert (limits.size, limits.wait_s) == (1, 0.0)


def test_without_a_target_nothing_adapts() -> None:
    limits = BatchLimits(64, 0.1)
    batches(limits, lambda _: 5.0, 100)
    assert (limits.size, limits.wait_s) == (64, 0.1)


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
        (ConsumeSettings(reply=True, concurrency=2, batch_size=8), 16),
        (ConsumeSettings(reply=True, executor="processes", workers=3), 3),
        (ConsumeSettings(reply=True, concurrency="auto", max_concurrency=40), 40),
        (ConsumeSettings(reply=True, concurrency=2, window=50), 50),
        (ConsumeSettings(concurrency=2), 200),
    ):
        assert window(consume, 1, None, 200) == expected
