"""The drain rate: capacity, seen only while there is work."""

import pytest

from infertool.gateway.drain import DrainRate


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rate(clock: Clock) -> DrainRate:
    return DrainRate(clock)


def work(clock: Clock, rate: DrainRate, per_s: int, seconds: float, *, held_back: bool = True) -> None:
    """Finish `per_s` requests in each second, with more pending all the time."""
    rate.pending(10, held_back=held_back)
    for _ in range(round(per_s * seconds)):
        clock.now += 1 / per_s
        rate.completed()


def test_no_rate_is_known_before_a_second_of_work(clock: Clock, rate: DrainRate) -> None:
    assert rate.per_s is None
    rate.pending(0, held_back=False)
    clock.now += 100
    assert rate.per_s is None
    work(clock, rate, 50, 0.9)
    assert rate.per_s is None
    work(clock, rate, 50, 0.2)
    assert rate.per_s == pytest.approx(50, rel=0.1)


def test_the_rate_follows_the_capacity_up_and_down(clock: Clock, rate: DrainRate) -> None:
    work(clock, rate, 50, 5)
    work(clock, rate, 200, 10)
    assert rate.per_s == pytest.approx(200, rel=0.1)
    work(clock, rate, 20, 15)
    assert rate.per_s == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("idle", ["nothing", "light load", "gaps between requests"])
def test_less_load_does_not_lower_the_rate(clock: Clock, rate: DrainRate, idle: str) -> None:
    work(clock, rate, 100, 5)
    rate.pending(0, held_back=False)
    if idle == "nothing":
        clock.now += 3600
    elif idle == "light load":
        work(clock, rate, 5, 60, held_back=False)
    else:
        for _ in range(200):
            rate.pending(1, held_back=False)
            clock.now += 0.05
            rate.completed()
            rate.pending(0, held_back=False)
            clock.now += 0.95
    assert rate.per_s == pytest.approx(100, rel=0.05)


def test_a_light_load_raises_a_rate_that_was_too_low(clock: Clock, rate: DrainRate) -> None:
    work(clock, rate, 5, 3)
    work(clock, rate, 60, 15, held_back=False)
    assert rate.per_s == pytest.approx(60, rel=0.1)


def test_a_moment_without_held_back_work_makes_the_fold_a_lower_bound(clock: Clock, rate: DrainRate) -> None:
    work(clock, rate, 100, 5)
    for _ in range(20):
        work(clock, rate, 10, 0.5)
        rate.pending(3, held_back=False)
        work(clock, rate, 10, 0.5)
    assert rate.per_s == pytest.approx(100, rel=0.05)


def test_consumers_that_are_gone_bring_the_rate_down(clock: Clock, rate: DrainRate) -> None:
    work(clock, rate, 100, 5)
    rate.pending(200, held_back=True)
    for _ in range(20):
        clock.now += 1
        assert rate.per_s is not None
    last = rate.per_s
    assert last is not None
    assert last < 1


def test_a_gap_of_the_clock_counts_for_five_folds_at_most_and_a_step_back_for_none(
    clock: Clock, rate: DrainRate
) -> None:
    work(clock, rate, 100, 5)
    clock.now -= 500
    assert rate.per_s == pytest.approx(100, rel=0.05)
    clock.now += 36_000
    assert rate.per_s == pytest.approx(100 * 0.7**5, rel=0.1)


def test_without_word_of_what_is_pending_only_seconds_with_completions_count(clock: Clock, rate: DrainRate) -> None:
    for _ in range(10):
        for _ in range(40):
            clock.now += 0.025
            rate.completed()
        clock.now += 30
    assert rate.per_s is not None
    assert rate.per_s > 10


def test_a_rate_that_was_a_lower_bound_is_left_behind_after_two_folds(clock: Clock, rate: DrainRate) -> None:
    work(clock, rate, 20, 5, held_back=False)
    work(clock, rate, 100, 3.1)
    assert rate.per_s == pytest.approx(100, rel=0.2)


def test_results_in_lumps_are_no_rise(clock: Clock, rate: DrainRate) -> None:
    rate.pending(500, held_back=True)
    seen = []
    for _ in range(40):
        clock.now += 2
        rate.completed(128)
        seen.append(rate.per_s or 0)
    assert sum(seen[20:]) / 20 == pytest.approx(64, rel=0.15)
