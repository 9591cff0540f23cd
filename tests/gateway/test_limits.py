"""Limits of clients: the rate is exact, what is in flight is counted, and memory has a bound."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.errors import UsageError
from infertool.gateway.limits import Limits
from infertool.gateway.principal import ClientLimits, Principal
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.rate import NANOSECONDS, Rate

RATES = st.builds(Rate, st.integers(1, 1000), st.sampled_from([1, 7, 60, 3600]), st.integers(1, 50))
START = st.integers(0, 10**18)


def client(name: str = "key:a", rate: str = "", in_flight: int = 10, size: int = 1000) -> Principal:
    limits = ClientLimits(rate=Rate.parse(rate), max_in_flight=in_flight, max_bytes_in_flight=size)
    return Principal(client=name, limits=limits)


@given(RATES, START, st.lists(st.integers(0, 3 * NANOSECONDS), max_size=200))
def test_no_time_lets_more_through_than_its_share_and_one_burst(rate: Rate, start: int, pauses: list[int]) -> None:
    now, full_at, passed = start, 0, []
    for pause in pauses:
        now += pause
        full_at, wait = rate.take(full_at, now)
        if not wait:
            passed.append(now)
    interval = rate.seconds * NANOSECONDS / rate.count
    for first, began in enumerate(passed):
        for last in range(first, len(passed)):
            # The same as: passed in the time <= burst + time / interval.
            assert (last - first + 1 - rate.burst) * interval <= passed[last] - began + 1


@given(RATES, START, st.lists(st.integers(0, NANOSECONDS), max_size=100))
def test_a_refused_request_passes_at_the_time_it_is_told_and_not_before(
    rate: Rate, start: int, pauses: list[int]
) -> None:
    now, full_at = start, 0
    for pause in pauses:
        now += pause
        left = rate.left(full_at, now)
        full_at, wait = rate.take(full_at, now)
        assert bool(wait) == (left == 0)
        if wait:
            assert rate.take(full_at, now + wait - 1)[1] == 1
            assert rate.take(full_at, now + wait)[1] == 0
        else:
            assert rate.left(full_at, now) == left - 1
        full = rate.full_in_ns(full_at, now)
        assert rate.left(full_at, now + full) == rate.burst
        assert full == 0 or rate.left(full_at, now + full - 1) < rate.burst


@given(RATES, st.integers(1, 300))
def test_who_sends_at_the_rate_is_never_refused(rate: Rate, requests: int) -> None:
    full_at, interval = 0, -(-rate.seconds * NANOSECONDS // rate.count)
    for number in range(requests):
        full_at, wait = rate.take(full_at, number * interval)
        assert wait == 0


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100, 1, 100)),
        ("600/m", Rate(600, 60, 600)),
        ("5/10s:2", Rate(5, 10, 2)),
        (" 1/2h ", Rate(1, 7200, 1)),
        ("", None),
    ],
)
def test_rates_as_they_are_written(text: str, rate: Rate | None) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["0/s", "1", "1/s:0", "-1/s", "1/0s", "1.5/s", "1/d", "\u0661/s", "1/s:", "9" * 20 + "/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no rate"):
        Rate.parse(text)


def test_a_burst_passes_and_what_follows_is_told_when_it_passes() -> None:
    limits = Limits()
    a = client(rate="4/2s:3", in_flight=100)
    said = [limits.take(a, 1, 100.0).headers for _ in range(3)]
    assert [each["X-RateLimit-Remaining"] for each in said] == ["2", "1", "0"]
    assert said[0] == {
        "RateLimit-Policy": '"rate";q=3;w=2, "in-flight";q=100;qu="concurrent-requests", '
        '"bytes";q=1000;qu="content-bytes"',
        "RateLimit": '"rate";r=2;t=1, "in-flight";r=99',
        "X-RateLimit-Limit": "3",
        "X-RateLimit-Remaining": "2",
        "X-RateLimit-Reset": "1",
    }
    with pytest.raises(Problem) as refused:
        limits.take(a, 1, 100.125)
    assert refused.value.reason is Reason.RATE_LIMITED
    assert refused.value.retry_after_s == 1
    assert refused.value.members == {"retry_after_ms": 375}
    assert refused.value.headers["RateLimit"] == '"rate";r=0;t=2, "in-flight";r=97'
    assert limits.in_flight("key:a") == 3  # what was refused is not counted
    with pytest.raises(Problem):
        limits.take(a, 1, 100.4999)
    limits.take(a, 1, 100.5)
    limits.take(client("key:b", rate="4/2s:3"), 1, 100.5)


def test_what_is_in_flight_is_limited_until_it_ends() -> None:
    limits = Limits()
    a = client(in_flight=2, size=1000)
    limits.take(a, 600, 0.0)
    with pytest.raises(Problem) as bytes_refused:
        limits.take(a, 401, 0.0)
    said = limits.take(a, 400, 0.0).headers
    assert said["RateLimit"] == '"in-flight";r=0'
    assert "X-RateLimit-Limit" not in said
    with pytest.raises(Problem) as count_refused:
        limits.take(a, 0, 0.0)
    assert [bytes_refused.value.reason, count_refused.value.reason] == [
        Reason.TOO_MANY_BYTES, Reason.TOO_MANY_IN_FLIGHT,
    ]  # fmt: skip
    # When they end is not known here.
    assert (bytes_refused.value.retry_after_s, count_refused.value.retry_after_s) == (None, None)
    limits.release("key:a", 400)
    limits.take(a, 400, 0.0)
    for _ in range(5):
        limits.release("key:a", 10_000)
    limits.release("key:unknown", 1)
    assert limits.in_flight("key:a") == 0
    assert limits.take(a, 1000, 0.0).headers["RateLimit"] == '"in-flight";r=1'


def test_the_events_of_a_batch_pass_together_or_not_at_all() -> None:
    limits = Limits()
    a = client(rate="10/s", in_flight=100, size=1000)
    limits.take(a, 300, 0.0)
    limits.take(a, 100, 0.0)
    # Nine of them are left, and the one that the batch itself has taken.
    said = limits.take_batch(a, 90, 9, 0.0, was=100).headers
    assert said["RateLimit"] == '"rate";r=0;t=1, "in-flight";r=90'
    limits.take(a, 100, 0.1)
    with pytest.raises(Problem) as refused:
        limits.take_batch(a, 90, 3, 0.1, was=100)
    assert (refused.value.reason, refused.value.members) == (Reason.RATE_LIMITED, {"retry_after_ms": 200})
    # What was refused is not counted: `release` takes out the request that brought it.
    assert limits.in_flight("key:a") == 11
    limits.release("key:a", 100)
    assert limits.take(a, 100, 0.1).headers["X-RateLimit-Remaining"] == "0"
    assert limits.take_batch(a, 610, 3, 0.3, was=100).headers["RateLimit"].endswith('"in-flight";r=87')
    with pytest.raises(Problem) as bytes_refused:
        limits.take(a, 1, 0.4)
    assert bytes_refused.value.reason is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize(("events", "size", "told"), [(11, 50, "11 events"), (4, 50, "4 events"), (2, 1001, "bytes")])
def test_what_passes_at_no_time_is_told_so(events: int, size: int, told: str) -> None:
    limits = Limits()
    a = client(rate="10/s" if events > 4 else "", in_flight=3 if events == 4 else 100)
    limits.take(a, 10, 0.0)
    with pytest.raises(Problem, match=told) as refused:
        limits.take_batch(a, size, events, 0.0, was=10)
    assert (refused.value.reason, refused.value.retry_after_s) == (Reason.BODY_TOO_LARGE, None)
    limits.release("key:a", 10)
    with pytest.raises(Problem) as refused:
        limits.take(a, 1001, 0.0)
    assert refused.value.reason is Reason.BODY_TOO_LARGE
    assert limits.in_flight("key:a") == 0


def test_requests_from_before_a_restart_count() -> None:
    limits = Limits()
    limits.resume("r-1", "key:a", 900)
    with pytest.raises(Problem, match="bytes"):
        limits.take(client(size=1000), 101, 0.0)
    limits.ended("r-1")
    assert len(limits) == 0
    limits.take(client(size=1000), 101, 0.0)


def test_an_end_counts_once_however_often_it_is_told() -> None:
    limits = Limits()
    for number in range(2):
        limits.take(client(), 10, 0.0)
        limits.give(f"r-{number}", "key:a", 10)
    for _ in range(3):
        limits.ended("r-0")
        limits.ended("of an earlier process")
        assert limits.in_flight("key:a") == 1
    limits.ended("r-1")
    assert limits.in_flight("key:a") == 0


def test_a_new_rate_of_a_key_counts_at_once() -> None:
    limits = Limits()
    limits.take(client(rate="1/h"), 1, 0.0)
    with pytest.raises(Problem):
        limits.take(client(rate="1/h"), 1, 1.0)
    assert limits.take(client(rate="5/s"), 1, 1.0).headers["X-RateLimit-Remaining"] == "4"
    assert "X-RateLimit-Remaining" not in limits.take(client(), 1, 1.0).headers


@pytest.mark.long
def test_addresses_are_forgotten_as_they_go() -> None:
    limits = Limits()
    shared = client(rate="10/s").limits
    most = 0
    for number in range(200_000):
        name = f"address:{number}"
        limits.take(Principal(client=name, limits=shared), 1, number / 10_000)
        limits.release(name, 1)
        most = max(most, len(limits))
    # 10 000 new ones a second, each a tenth of a second from its whole burst.
    assert most < 5_000


def test_clients_that_cannot_be_forgotten_yet_are_limited_in_number() -> None:
    limits = Limits(most_idle=1000)
    numbers = count()
    for _ in range(100):
        limits.take(client(f"key:{next(numbers)}"), 1, 0.0)
    for _ in range(20_000):
        name = f"address:{next(numbers)}"
        limits.take(client(name, rate="1/h"), 1, 0.0)
        limits.release(name, 1)
    assert len(limits) <= 1100
    assert [limits.in_flight(f"key:{number}") for number in range(100)] == [1] * 100
