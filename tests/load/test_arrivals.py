"""Schedules, checked against the arithmetic of the plan and by statistics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.errors import UsageError
from infertool.load.arrivals import Planned, Process, schedule
from infertool.load.traces import NewTraces, of_option
from infertool.telemetry.trace_context import parse
from tests.support.present import present


def times(**planned: Any) -> list[float]:
    return list(schedule(Planned(**planned)).times())


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert times(qps=250, duration_s=4) == [n / 250 for n in range(1000)]


def test_poisson_gaps_are_exponential() -> None:
    due = times(qps=500, duration_s=20, process=Process.POISSON, seed=11)
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(due))
    # Kolmogorov-Smirnov: the largest distance to the distribution function, against its 1 % bound.
    count = len(gaps)
    distance = max(
        max((rank + 1) / count - _exponential(gap), _exponential(gap) - rank / count) for rank, gap in enumerate(gaps)
    )
    assert distance < 1.63 / math.sqrt(count)
    assert abs(len(due) - 10_000) < 4 * math.sqrt(10_000)


def _exponential(gap: float) -> float:
    return 1 - math.exp(-500 * gap)


def test_even_gaps_would_fail_that_test() -> None:
    gaps = [1 / 500] * 10_000
    assert max(_exponential(gap) for gap in gaps) > 1.63 / math.sqrt(len(gaps))


def test_stages_follow_each_other() -> None:
    due = times(stages=("100:2s", "0:1s", "50:2s"))
    assert len([t for t in due if t < 2]) == 200
    assert not [t for t in due if 2 < t < 3]
    assert len([t for t in due if t >= 3]) == 100


@pytest.mark.parametrize(
    ("text", "rate"), [("0:1000:10s", lambda t: 100 * t), ("1000:200:10s", lambda t: 1000 - 80 * t)]
)
def test_a_ramp_has_its_rate_everywhere(text: str, rate: Callable[..., Any]) -> None:
    due = times(ramp=text)
    for begin in range(10):
        here = len([t for t in due if begin <= t < begin + 1])
        assert abs(here - rate(begin + 0.5)) <= 1


def test_bursts_come_at_the_end_of_each_period() -> None:
    due = times(qps=10, burst="1000:2s/10s", duration_s=30)
    for period in (0, 10, 20):
        assert len([t for t in due if period <= t < period + 8]) == 80
        assert len([t for t in due if period + 8 <= t < period + 10]) == 2000


def test_after_its_end_a_ramp_holds_its_last_rate_up_to_the_duration() -> None:
    due = times(ramp="0:100:2s", duration_s=5)
    assert len([t for t in due if t < 2]) == 100
    assert len([t for t in due if t >= 2]) == 300


rates = st.integers(1, 2000)
lengths = st.integers(1, 40)


@given(
    st.one_of(
        st.tuples(rates, lengths).map(lambda p: ({"qps": p[0], "duration_s": p[1]}, p[0] * p[1])),
        st.lists(st.tuples(st.integers(0, 2000), lengths), min_size=1, max_size=5)
        .filter(lambda steps: any(rate for rate, _ in steps))
        .map(lambda steps: ({"stages": tuple(f"{r}:{s}s" for r, s in steps)}, sum(r * s for r, s in steps))),
        st.tuples(rates, rates, lengths).map(lambda p: ({"ramp": f"{p[0]}:{p[1]}:{p[2]}s"}, (p[0] + p[1]) * p[2] / 2)),
        st.tuples(rates, rates, st.integers(1, 5), st.integers(6, 20), st.integers(1, 3)).map(
            lambda p: (
                {"qps": p[0], "burst": f"{p[1]}:{p[2]}s/{p[3]}s", "duration_s": p[3] * p[4]},
                p[4] * (p[0] * (p[3] - p[2]) + p[1] * p[2]),
            )
        ),
    )
)
def test_the_integral_of_a_plan_is_its_count(case: tuple[Any, ...]) -> None:
    planned, integral = case
    due = times(**planned)
    assert len(due) == math.ceil(integral)
    assert due == sorted(due)
    assert due[0] >= 0
    assert due[-1] < schedule(Planned(**planned)).end_s


@given(rates, st.integers(1, 300), st.integers(0, 5), st.sampled_from(Process))
def test_a_count_leaves_out_the_warm_up(rate: int, count: int, warmup_s: int, process: Process) -> None:
    plan = schedule(Planned(qps=rate, count=count, warmup_s=warmup_s, process=process))
    due = list(plan.times())
    assert len([t for t in due if t >= warmup_s]) == count
    assert due[-1] < plan.end_s < math.inf


@pytest.mark.parametrize(
    "planned",
    [
        {"qps": 7}, {"qps": 3, "burst": "50:1s/4s"}, {"stages": ("0:1s", "9:2s", "0:3s", "4:1s"), "duration_s": 30},
        {"ramp": "0:30:5s", "duration_s": 9}, {"qps": 7, "process": Process.POISSON},
    ],
)  # fmt: skip
def test_the_end_of_a_count_is_the_time_of_the_event_after_it(planned: dict[str, Any]) -> None:
    due = list(itertools.islice(schedule(Planned(**planned)).times(), 100))
    for count in (1, 2, 19, 20, 45):
        assert schedule(Planned(**planned, count=count)).end_s == due[count]


def test_the_end_of_an_even_plan_is_known_without_going_through_it() -> None:
    assert schedule(Planned(qps=1_000_000, count=10**12)).end_s == 1e6


def test_one_seed_makes_one_schedule() -> None:
    def one(seed: int) -> list[float]:
        return times(qps=100, duration_s=5, process=Process.POISSON, seed=seed)

    assert one(3) == one(3) != one(4)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], (None, None)),
        (["1%"], (None, 0.01)),
        (["100%", "t.txt"], (Path("t.txt"), 1.0)),
        (["./1%", "0.5%"], (Path("1%"), 0.005)),
        (["1"], (Path("1"), None)),
        (["101%"], "more than all events"),
        (["1%", "2%"], "--trace goes once"),
        (["a", "b"], "--trace goes once"),
    ],
)
def test_the_option_names_a_file_of_times_and_a_share_of_traces(values: list[str], found: object) -> None:
    if isinstance(found, str):
        with pytest.raises(UsageError, match=found):
            of_option(values)
    else:
        assert of_option(values) == found


def test_each_event_begins_a_trace_and_a_share_is_recorded() -> None:
    for share in (0.0, 0.25, 1.0):
        traces = NewTraces(share)
        contexts = [parse(traces.make()) for _ in range(2000)]
        assert len({present(context).trace_id for context in contexts}) == 2000
        assert abs(sum(present(context).sampled for context in contexts) / 2000 - share) < 0.08


def test_a_trace_gives_the_times(tmp_path: Path) -> None:
    file = tmp_path / "times.txt"
    file.write_text("# from the gateway\n2026-11-25T10:00:00Z\n\n2026-11-25T10:00:00.500Z\n2026-11-25T10:00:02Z\n")
    assert times(trace=file) == [0, 0.5, 2]
    assert times(trace=file, speed=2) == [0, 0.25, 1]
    assert times(trace=file, count=2) == [0, 0.5]


@pytest.mark.parametrize(
    ("planned", "words"),
    [
        ({}, "there is no rate"),
        ({"qps": 1, "ramp": "1:2:3s"}, "--qps and --ramp contradict"),
        ({"burst": "5:1s/2s", "ramp": "1:2:3s"}, "--burst needs a rate"),
        ({"qps": 1, "burst": "5:2s/2s"}, "lasts as long as its period"),
        ({"qps": 1, "burst": "5"}, "is no burst"),
        ({"stages": ("100",)}, "is no stage"),
        ({"stages": ("x:3s",)}, "x is no rate"),
        ({"stages": ("5:3 weeks",)}, "is not a duration"),
        ({"stages": ("0:3s",)}, "rate 0"),
        ({"stages": ("5:2s", "0:2s"), "duration_s": 9}, "ends with rate 0"),
        ({"ramp": "0:-5:3s"}, "-5 is no rate"),
        ({"qps": 5, "speed": 2}, "--speed goes only with --trace"),
        ({"qps": 5, "duration_s": 0}, "sends nothing"),
        ({"ramp": "1:2:3s", "warmup_s": 3}, "as long as the whole run"),
        ({"trace": Path("/nowhere/at/all")}, "cannot be read"),
    ],
)
def test_invalid_options_are_refused(planned: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        schedule(Planned(**planned))


@pytest.mark.parametrize(
    ("text", "words"), [("", "holds no times"), ("3\n1\n", "line 2 goes back"), ("soon\n", "is no time")]
)
def test_a_broken_trace_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "times.txt"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        schedule(Planned(trace=file))
