"""The figures of the last seconds: zero for an idle consumer, current ones for a busy one."""

from __future__ import annotations

import pytest

from infertool.cli.consume.view import StatusSource
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.telemetry import signals
from infertool.telemetry.latencies import Latencies
from infertool.telemetry.stats import RecentFigures, Stats, joint


def test_the_rate_and_latencies_are_of_the_last_ten_seconds() -> None:
    stats, recent = Stats(), RecentFigures()
    recent.add(stats.snapshot(), 0.0)
    for second in range(1, 61):
        stats(signals.Succeeded([1.0] * 100))
        figures = recent.add(stats.snapshot(), float(second))
    assert figures.rate == pytest.approx(100)
    assert figures.latency_ms.p99 == pytest.approx(1000, rel=0.01)
    for second in range(61, 121):
        stats(signals.Succeeded([0.01] * 40))
        figures = recent.add(stats.snapshot(), float(second))
        if second == 65:
            assert figures.rate == pytest.approx(70)
    assert figures.rate == pytest.approx(40)
    assert figures.latency_ms.p99 == pytest.approx(10, rel=0.01)
    assert figures.seconds == 10


def test_an_idle_consumer_has_no_rate_and_no_latency() -> None:
    stats, recent = Stats(), RecentFigures()
    stats(signals.Succeeded([1.238] * 1000))
    for second in range(30):
        figures = recent.add(stats.snapshot(), float(second))
    assert figures.rate == 0
    assert figures.latency_ms.p99 is None
    assert stats.snapshot().latency_ms.p99 == pytest.approx(1238, rel=0.01)


@pytest.mark.long
def test_samples_may_be_at_any_distance() -> None:
    for distance in (0.05, 0.25, 3.0, 10.0, 60.0):
        stats, recent = Stats(), RecentFigures()
        for number in range(round(120 / distance)):
            figures = recent.add(stats.snapshot(), number * distance)
            stats(signals.DeadLettered([0.1] * 10))
        assert figures.rate == pytest.approx(10 / distance, rel=0.15)
        assert 10 <= figures.seconds <= 11 + distance


def test_before_the_second_sample_figures_are_zero() -> None:
    figures = RecentFigures().add(Stats().snapshot(), 5.0)
    assert (figures.seconds, figures.rate, figures.latency_ms.p50) == (0, 0, None)


def test_the_figures_of_several_processes_are_those_of_one() -> None:
    first, second, recent = Stats(), Stats(), RecentFigures()
    first(signals.InProgress(3, 200, 17))
    second(signals.InProgress(5, 200, None))
    recent.add(joint([first.report(), second.report()], [first.report()]), 0.0)
    first(signals.Succeeded([0.1] * 30))
    second(signals.Succeeded([0.2] * 20))
    reports = [first.report(), second.report()]
    together = joint(reports, reports)
    assert recent.add(together, 10.0).rate == 5
    assert (together.in_progress, together.window, together.waiting) == (8, 400, 17)


def test_a_histogram_can_be_compared_with_what_it_was() -> None:
    now = Latencies()
    now.add([5.0, 7.0])
    before = now.copy()
    assert now.percentiles_since(before).count == 0
    now.add([0.001] * 98)
    now.add([0.2] * 2)
    since = now.percentiles_since(before)
    assert since.count == 100
    assert since.p50 == pytest.approx(1, rel=0.01)
    assert since.max == pytest.approx(200, rel=0.01)
    assert before.percentiles().count == 2


@pytest.mark.parametrize(
    ("told", "phoenix"),
    [
        (signals.Unconfirmed(3, 12.4), "phoenix connected, 3 pushes unconfirmed, oldest 12 s"),
        (signals.Unconfirmed(200, 0.1), "phoenix connected"),  # as in any busy run
        (signals.Unconfirmed(0, 0.0), "phoenix connected"),
    ],
)
def test_the_status_shows_pushes_that_are_long_unconfirmed(told: signals.Unconfirmed, phoenix: str) -> None:
    stats = Stats()
    for side in ("broker", "phoenix"):
        stats(signals.ConnectionChanged(side, ConnectionEvent(ConnectionState.CONNECTED, "x://h", 1)))
    stats(told)
    status = StatusSource(stats).now()
    assert status.line().split(" | ")[-2:] == ["broker connected", phoenix]
    assert (status.fields()["unconfirmed"], status.fields()["oldest_push_s"]) == (told.count, told.oldest_s)


def test_the_status_shows_what_became_of_requests_if_there_are_any() -> None:
    stats = Stats()
    assert "replied" not in StatusSource(stats).now().line()
    stats(signals.Replied(3))
    stats(signals.ReplyLost("e", "q", "gone"))
    stats(signals.Dropped("e", "expired", 0.1))
    assert "3 replied, 1 replies lost, 1 expired" in StatusSource(stats).now().line().split(" | ")
    assert stats.snapshot().settled == 1
