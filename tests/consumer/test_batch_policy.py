"""The batcher, on simulated devices: it finds what a fixed size would have to be told. No clock, no thread."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from infertool.consumer.batching.call_times import CallTimes, Line
from infertool.consumer.batching.policy import LONG_S, AdaptiveBatches
from infertool.consumer.batching.port import FixedBatches
from tests.consumer.simulated_device import Beside, Run, Seconds, bursts, linear, poisson, simulate
from tests.support.examples import examples

MOST = 1024
WINDOW = 4 * MOST
# Fixed part of a call, and part of an event, in seconds: from 50 us to 200 ms a call.
MODELS = [(5e-5, 2e-5), (1e-3, 1e-5), (3e-3, 5e-5), (2e-2, 1e-4), (0.2, 1e-3), (1e-4, 1e-3), (5e-2, 2e-3)]


def saturated(batches: AdaptiveBatches | FixedBatches, seconds: Seconds, until: float, *, serial: bool = False) -> Run:
    return simulate(batches, (), seconds, until=until, serial=serial, window=WINDOW)


def settled_rate(run: Run) -> float:
    """Return the events a second in calls of the second half, also where the last calls are long."""
    late = run.ended[len(run.ended) // 2 :]
    return (len(late) - late.count(late[0])) / (late[-1] - late[0])


@pytest.mark.parametrize("serial", [False, True], ids=["parallel", "one-at-a-time"])
@pytest.mark.parametrize(("fixed_s", "each_s"), MODELS)
def test_it_is_as_fast_as_the_best_fixed_size_when_saturated(fixed_s: float, each_s: float, serial: bool) -> None:
    seconds, until = linear(fixed_s, each_s), max(1.0, 60 * fixed_s)
    found = settled_rate(saturated(AdaptiveBatches(MOST, workers=2), seconds, until, serial=serial))
    sizes = [size for size in (1, 4, 16, 64, 256, MOST) if seconds(size, 0) <= max(LONG_S, 2 * fixed_s)]
    best = max(settled_rate(saturated(FixedBatches(size, 0.0), seconds, until, serial=serial)) for size in sizes)
    assert found >= 0.95 * best


@examples(15, phases=(Phase.generate,))
@given(
    model=st.sampled_from([(5e-5, 5e-6), (1e-3, 5e-5), (5e-3, 1e-4), (2e-2, 5e-4)]),
    beside=st.builds(Beside, st.floats(0, 3e-4), st.floats(1e-5, 6e-5), st.sampled_from([0.0, 0.1, 0.5])),
    noise=st.floats(0.0, 0.05),
    serial=st.booleans(),
)
def test_a_lock_that_is_held_for_a_part_of_each_call_and_between_calls_leads_to_no_other_size_than_a_good_one(
    model: tuple[float, float], beside: Beside, noise: float, serial: bool
) -> None:
    """What is measured then includes waits for the lock. An event costs 10 us or more beside the model, as it does."""
    seconds = linear(*model, noise)
    until = 60 * (seconds(MOST, 0) + beside.batch_s + beside.event_s * MOST)

    def rate(batches: AdaptiveBatches | FixedBatches) -> float:
        run = simulate(batches, (), seconds, until=until, serial=serial, window=WINDOW, beside=beside)
        return run.rate(0.4 * until, until)

    # Whole batches count: each worker's last one makes a part of 0.03.
    assert rate(AdaptiveBatches(MOST, workers=2)) >= 0.87 * max(rate(FixedBatches(n, 0.0)) for n in (64, 256, MOST))


@examples(12, phases=(Phase.generate,))
@given(
    fixed_s=st.floats(1e-3, 0.02),
    part=st.floats(0.01, 0.2),
    slower=st.floats(1.0, 6.0),
    pairs=st.integers(1, 2),
    noise=st.floats(0.0, 0.1),
)
def test_workers_of_unequal_speed_have_a_line_each_and_meet_a_target_that_a_fixed_size_meets(
    fixed_s: float, part: float, slower: float, pairs: int, noise: float
) -> None:
    each_s = part * fixed_s
    factors = (1.0, slower) * pairs
    # Six tenths of what all do with large batches.
    rate = min(4000, 0.6 * sum(1 / (each_s * factor) for factor in factors))
    until = 2.0 + 20 * slower * fixed_s
    events = list(poisson(rate, until))

    def p99(batches: AdaptiveBatches | FixedBatches) -> float:
        model = linear(fixed_s, each_s, noise)
        return simulate(batches, events, model, until=until, factors=factors).p99(0.4 * until)

    target_s = 1.5 * min(p99(FixedBatches(size, 0.0)) for size in (8, 32, 128, 512))
    batches = AdaptiveBatches(MOST, workers=len(factors), target_s=target_s)
    assert p99(batches) <= target_s


def test_each_worker_has_its_own_line_and_what_waits_is_shared_by_speed() -> None:
    batches = AdaptiveBatches(MOST, workers=2, target_s=0.1)
    simulate(batches, (), linear(5e-3, 1e-3, 0.02), until=5.0, window=WINDOW, factors=(1.0, 4.0))
    assert batches.take(0, 100, 10.0) == pytest.approx(80, abs=8)
    assert batches.take(1, 100, 10.0) == pytest.approx(20, abs=8)
    assert batches.found() == {"batch_size": batches.size, "parallel_calls": 2}
    batches.forget(1)
    assert batches.take(1, 100, 10.0) == pytest.approx(50, abs=8), "one that is not known is taken to be as fast"


def test_a_worker_in_a_call_has_a_share_by_when_that_ends() -> None:
    batches = AdaptiveBatches(MOST, workers=2, target_s=0.2)
    simulate(batches, (), linear(1e-3, 1e-3, 0.02), until=5.0, window=WINDOW)
    assert batches.one_at_a_time is False
    batches.ended(0)
    batches.ended(1)
    assert batches.take(0, 64, 10.0) == pytest.approx(32, abs=4), "both begin now"
    batches.began(1, 40, 10.0)
    assert batches.take(0, 64, 10.0) == pytest.approx(52, abs=4), "the other begins after 40 of them"
    batches.began(1, 80, 10.0)
    assert batches.take(0, 64, 10.0) == 64, "the other begins when all are done"
    assert batches.take(0, 64, 10.06) == pytest.approx(42, abs=4), "it has nearly ended"


@pytest.mark.parametrize(("fixed_s", "each_s"), MODELS)
def test_it_is_near_its_steady_state_after_two_seconds(fixed_s: float, each_s: float) -> None:
    run = saturated(AdaptiveBatches(MOST, workers=2), linear(fixed_s, each_s, noise=0.05), max(3.0, 60 * fixed_s))
    steady = settled_rate(run)
    begun = next(at for at, size in run.calls if size / (fixed_s + each_s * size) >= 0.9 * steady / 2)
    assert begun <= 2.0


@examples(15, phases=(Phase.generate,))
@given(
    fixed_s=st.floats(2e-3, 0.05),
    each_s=st.floats(1e-5, 2e-3),
    noise=st.floats(0.0, 0.15),
    outliers=st.sampled_from([0.0, 0.02]),
    serial=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_noise_and_outliers_cost_little(
    fixed_s: float, each_s: float, noise: float, outliers: float, serial: bool, seed: int
) -> None:
    model = linear(fixed_s, each_s, noise, outliers, seed)
    run = saturated(AdaptiveBatches(MOST, workers=2), model, 200 * fixed_s + 2.0, serial=serial)
    # Calls that take five times their fixed part, or the largest ones.
    size = min(MOST, 4 * fixed_s / each_s)
    best = (1 if serial else 2) * size / (fixed_s + each_s * size) / (1 + 4 * outliers)
    assert settled_rate(run) >= 0.85 * best


@examples(15, phases=(Phase.generate,))
@given(
    fixed_s=st.floats(1e-3, 0.05),
    part=st.floats(0.002, 0.5),
    noise=st.floats(0.0, 0.1),
    serial=st.booleans(),
    arrives=st.sampled_from([poisson, bursts]),
)
def test_at_60_percent_load_it_meets_a_target_that_a_fixed_setting_meets(
    fixed_s: float, part: float, noise: float, serial: bool, arrives: object
) -> None:
    each_s = fixed_s * part
    limit = (1 if serial else 2) * MOST / (fixed_s + each_s * MOST)
    rate = 0.6 * limit
    until = min(6.0, 6_000 / rate) + 1.0
    assert callable(arrives)
    events: list[float] = list(arrives(rate, until))

    def p99(batches: AdaptiveBatches | FixedBatches) -> float:
        return simulate(batches, events, linear(fixed_s, each_s, noise), until=until, serial=serial).p99(1.0)

    best = min(p99(FixedBatches(size, wait_s)) for size in (8, 64, 512) for wait_s in (0.0, fixed_s / 2))
    # With this margin a target tells a good setting from a lucky one.
    assert p99(AdaptiveBatches(MOST, workers=2, target_s=1.5 * best)) <= 1.5 * best


def steps(rates: Iterable[tuple[float, float]], until: float) -> list[float]:
    """Return arrivals whose rate changes at some times."""
    plan = [*rates, (until, 0.0)]
    return [begin + at for (begin, rate), (end, _) in pairwise(plan) for at in poisson(rate, end - begin)]


@pytest.mark.parametrize("serial", [False, True], ids=["parallel", "one-at-a-time"])
def test_a_step_in_load_is_followed_within_two_seconds(serial: bool) -> None:
    model = linear(5e-3, 1e-4, 0.05)
    run = simulate(
        AdaptiveBatches(MOST, workers=2), steps([(0, 100), (3, 5000), (8, 100)], 11), model, until=11, serial=serial
    )
    assert run.p99(5.0) <= 0.05
    assert run.rate(5, 8) == pytest.approx(5000, rel=0.05)


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_a_step_in_speed_is_followed_within_two_seconds(factor: float) -> None:
    fixed_s, each_s = 5e-3, 1e-4
    before = linear(fixed_s, each_s, 0.05)
    batches = AdaptiveBatches(MOST, workers=2)

    def seconds(size: int, now: float) -> float:
        return before(size, now) * (factor if now >= 2 else 1)

    run = saturated(batches, seconds, 8.0)
    assert run.rate(3.5, 8.0) >= 0.85 * 2 / (each_s * factor)
    assert batches.line.seconds(500) == pytest.approx(factor * (fixed_s + 500 * each_s), rel=0.25)


def test_one_slow_call_changes_nothing() -> None:
    times = CallTimes()
    for number in range(60):
        size = 1 + number % 32
        times.add(size, 0.01 + 0.001 * size)
    before = times.line
    times.add(16, 3.0)
    times.add(16, 2.0)
    assert times.line.seconds(16) == pytest.approx(before.seconds(16), rel=0.05)


def test_a_slow_first_call_is_forgotten() -> None:
    batches = AdaptiveBatches(MOST, workers=2)
    real = linear(5e-3, 1e-5)
    run = saturated(batches, lambda size, now: real(size, now) + (2.0 if now == 0 else 0), 4.0)
    assert run.rate(3, 4) >= 0.9 * 2 * MOST / (5e-3 + 1e-5 * MOST)


@pytest.mark.parametrize("line", [Line(0.01, 0.001), Line(0.0, 0.001), Line(0.1, 1e-7)])
def test_a_line_is_found(line: Line) -> None:
    times = CallTimes()
    for size in (1, 2, 4, 8, 16, 32, 64) * 3:
        times.add(size, line.seconds(size))
    for size in (1, 10, 100):
        assert times.line.seconds(size) == pytest.approx(line.seconds(size), rel=0.01, abs=1e-5)


def test_a_free_worker_takes_what_waits_at_once() -> None:
    batches = AdaptiveBatches(MOST, workers=2)
    batches.arrived(1, 0.0)
    assert batches.wait_s("free", 1, 0.0, 0.0) == 0.0


def test_a_worker_waits_behind_a_call_no_longer_than_that_is_expected_to_take() -> None:
    batches = AdaptiveBatches(MOST, workers=2)
    simulate(batches, poisson(2000, 3.0), linear(5e-3, 1e-4), until=3.0, serial=True)
    assert batches.one_at_a_time
    assert batches.found() == {"batch_size": batches.size, "parallel_calls": 1}
    batches.ended(0)
    batches.ended(1)
    batches.began("hangs", 10, 10.0)
    assert 0 < batches.wait_s("free", 1, 10.0, 10.0) < 0.05
    assert batches.wait_s("free", 1, 10.0, 10.05) == 0.0, "nothing waits for a call that hangs"
    batches.began("hangs", 10, 20.0)
    assert batches.wait_s("free", batches.size, 20.0, 20.0) == 0.0, "a full batch does not grow"
    batches.ended("hangs")
    assert batches.wait_s("free", 1, 20.0, 20.0) == 0.0


def test_the_window_and_the_longest_call_bound_the_size() -> None:
    batches = AdaptiveBatches(MOST, workers=2, longest_s=0.1)
    saturated(batches, linear(5e-3, 1e-3), 2.0)
    assert 60 <= batches.size <= 95
    batches.limit(20)
    assert batches.size == 20
    saturated(batches, linear(5e-3, 1e-3), 2.0)
    assert batches.size == 20


def sizes_to_prepare(line: Seconds, prepare_s: float) -> tuple[Seconds, set[int]]:
    """Return the times of a device that prepares itself for each size that is new to it, and the sizes it has seen."""
    seen: set[int] = set()

    def seconds(size: int, now: float) -> float:
        extra_s = 0.0 if size in seen else prepare_s
        seen.add(size)
        return line(size, now) + extra_s

    return seconds, seen


@pytest.mark.parametrize("serial", [False, True], ids=["parallel", "one-at-a-time"])
def test_a_device_that_prepares_itself_for_each_size_sees_few(serial: bool) -> None:
    """As GPUs do: the first call of a size may take ten times as long as the others."""
    fixed_s, each_s = 4e-3, 5e-5
    seconds, seen = sizes_to_prepare(linear(fixed_s, each_s, 0.03), 0.1)
    run = saturated(AdaptiveBatches(MOST, workers=2), seconds, 5.0, serial=serial)
    best = (1 if serial else 2) * MOST / (fixed_s + each_s * MOST)
    assert run.rate(3.0, 5.0) >= 0.9 * best
    assert len(seen) <= 30
    seconds, seen = sizes_to_prepare(linear(fixed_s, each_s, 0.03), 0.1)
    events = list(poisson(0.6 * best, 10.0))
    run = simulate(AdaptiveBatches(MOST, workers=2), events, seconds, until=10.0, serial=serial)
    assert run.rate(5.0, 10.0) >= 0.57 * best
    assert len(seen) <= 40
