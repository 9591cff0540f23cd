from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from infertool.telemetry.latencies import Latencies
from tests.support.present import present

TIMES = st.lists(st.floats(0, 3600), min_size=1, max_size=300)
PRECISION = 0.001


def recorded(seconds: list[Any]) -> Latencies:
    latencies = Latencies()
    latencies.add(seconds)
    return latencies


def agrees(figure_ms: float, exact_s: float) -> bool:
    """Return True if a figure is within the histogram's three digits; its unit is a microsecond."""
    return figure_ms == pytest.approx(exact_s * 1000, rel=PRECISION, abs=0.0015)


def compare(seconds: list[Any]) -> None:
    figures = recorded(seconds).percentiles()
    for figure, quantile in ((figures.p50, 50), (figures.p90, 90), (figures.p99, 99), (figures.p99_9, 99.9)):
        # A hair less: numpy multiplies floats, and where the rank is a whole number lands on the sample after it.
        assert agrees(present(figure), np.percentile(seconds, quantile - 1e-9, method="inverted_cdf"))
    assert agrees(present(figures.max), max(seconds))
    assert agrees(present(figures.mean), np.mean(seconds))
    assert figures.count == len(seconds)


@given(TIMES)
def test_percentiles_agree_with_numpy(seconds: list[float]) -> None:
    compare(seconds)


@pytest.mark.parametrize("draw", ["expovariate(20)", "lognormvariate(-3, 1)", "uniform(0, 3600)", "gauss(0.3, 0.01)"])
def test_percentiles_of_many_samples_agree_with_numpy(draw: str) -> None:
    rng = random.Random(4)
    compare([eval(f"rng.{draw}", {"rng": rng}) for _ in range(20_000)])


@given(TIMES)
def test_the_encoding_is_decoded_here_and_by_other_tools(seconds: list[float]) -> None:
    written = recorded(seconds)
    assert Latencies.decode(written.encode()).percentiles() == written.percentiles()
    assert HdrHistogram.decode(written.encode()).get_total_count() == len(seconds)


@given(TIMES, TIMES)
def test_merging_is_recording_both(one: list[float], other: list[float]) -> None:
    merged = recorded(one)
    merged.merge(Latencies.decode(recorded(other).encode()))
    both = recorded(one + other)
    assert merged.percentiles() == both.percentiles()
    assert merged.curve() == both.curve()


@given(TIMES)
def test_the_curve_rises_to_the_largest(seconds: list[float]) -> None:
    latencies = recorded(seconds)
    curve = latencies.curve()
    assert curve == sorted(set(curve))
    assert curve[-1] == (1.0, latencies.percentiles().max)


def test_nothing_recorded_has_no_figures() -> None:
    latencies = Latencies()
    assert latencies.percentiles().p99 is None
    assert latencies.percentiles().count == 0
    assert latencies.curve() == []
    assert Latencies.decode(latencies.encode()).count == 0


WHOLE = recorded([0.001 * n for n in range(500)]).encode()


@given(st.one_of(st.text(max_size=60), st.integers(0, len(WHOLE) - 1).map(lambda end: WHOLE[:end])))
def test_other_text_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="HDR histogram"):
        Latencies.decode(text)


def test_another_precision_is_rejected() -> None:
    with pytest.raises(ValueError, match="another range or precision"):
        Latencies.decode(HdrHistogram(1, 1000, 2).encode().decode())
