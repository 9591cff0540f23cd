"""Scales of plots: values keep their order and stay on the scale, ticks are few and round."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infertool.load.plot.chart import linear, logarithmic, milliseconds, number, percentiles

TIMES = st.floats(0.001, 3.6e6)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-2e6, 2e6))
def test_linear_scales(one: float, other: float, value: float) -> None:
    low, high = sorted((one, other))
    assume(high - low > 1e-3)
    scale = linear(low, high, number)
    assert (scale(low), scale(high)) == (0, 1)
    assert 0 <= scale(value) <= 1
    assert 2 <= len(scale.ticks) <= 7
    slack = 1e-6 + (high - low) * 1e-8  # a mark that rounding puts outside is drawn on the border
    assert all(low - slack <= mark <= high + slack for mark, _ in scale.ticks)


@given(TIMES, TIMES, TIMES)
def test_logarithmic_scales(one: float, other: float, value: float) -> None:
    low, high = sorted((one, other))
    scale = logarithmic(low, high, milliseconds)
    assert scale.low <= low * (1 + 1e-9)
    assert scale.high >= high * (1 - 1e-9)
    assert 0 <= scale(value) <= 1
    assert 2 <= len(scale.ticks) <= 13
    labels = [label for _, label in scale.ticks]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(("samples", "last"), [(1, "90"), (10, "90"), (11, "99"), (1000, "99.9"), (12_000, "99.999")])
def test_percentiles_reach_as_far_as_the_samples(samples: int, last: str) -> None:
    scale = percentiles(samples)
    assert [label for _, label in scale.ticks][:3] == ["0", "50", "90"]
    assert scale.ticks[-1][1] == last
    assert scale(10) == pytest.approx(1 / (len(scale.ticks) - 2))


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, "0"), (0.001, "1 µs"), (0.5, "500 µs"), (1, "1 ms"), (999, "999 ms"), (2500, "2.5 s"), (3.6e6, "3600 s")],
)
def test_times_have_their_unit(value: float, label: str) -> None:
    assert milliseconds(value) == label
