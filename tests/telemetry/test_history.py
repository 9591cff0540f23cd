"""Rates and latencies of the last minute, error ratios of the last hours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infertool.telemetry.history import History, Totals
from infertool.telemetry.latencies import Latencies
from infertool.telemetry.stats import COUNTS

START = 1000.0


def totals(enqueued: int | None = None, event_s: list[float] | None = None, **counts: int) -> Totals:
    event = Latencies()
    event.add(event_s or [])
    return Totals(
        dict.fromkeys(COUNTS, 0) | counts, event, Latencies(), Latencies(), Latencies(), enqueued
    )  # fmt: skip


def history(*samples: tuple[float, Totals]) -> History:
    made = History()
    for at, sample in samples:
        made.add(sample, START + at)
    return made


def test_one_sample_has_no_rates() -> None:
    made = history((0, totals(received=10)))
    assert made.rates().received == 0.0
    assert made.arrival_rate() is None
    assert made.errors().ratio_5m is None
    assert made.latencies().event.p99_ms is None


def test_rates_are_of_the_last_minute() -> None:
    counts: dict[str, Any] = {"received": 7, "succeeded": 3, "dead_lettered": 1, "failed": 2, "retried": 5}
    made = history(*((second, totals(**{name: n * second for name, n in counts.items()})) for second in range(200)))
    found = made.rates()
    assert (found.received, found.settled, found.failed, found.dead_lettered, found.retried) == (7, 4, 2, 1, 5)
    made.add(totals(**{name: n * 199 for name, n in counts.items()}), START + 229)
    assert made.rates().received == pytest.approx(3.5, rel=0.05)


def test_events_that_share_a_call_are_counted_by_event() -> None:
    sizes = [{1: 5}, {1: 15, 30: 1}, {1: 15, 30: 2}]
    made = history(*((second, replace(totals(), batch_sizes=each)) for second, each in enumerate(sizes)))
    # Of 70 events 10 were alone, and 60 among 30.
    assert made.events_a_call() == pytest.approx((10 * 1 + 60 * 30) / 70)
    assert history((0, totals())).events_a_call() == 1.0


def test_latencies_of_before_are_left_out() -> None:
    slow, fast = [5.0] * 10, [0.01] * 10
    made = history(
        (0, totals()), (1, totals(event_s=slow)), (62, totals(event_s=slow)), (63, totals(event_s=slow + fast))
    )  # fmt: skip
    found = made.latencies().event
    assert found.count == 10
    assert found.max_ms == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 60, 120], 1.0),
        ([None, 60, 120], 1.0),
        ([100, 160, 40], None),  # the broker was started anew
        ([None, None, None], None),
        ([5, None, None], None),
    ],
)
def test_the_rate_of_arrivals(counts: list[int | None], expected: float | None) -> None:
    assert history(*((60 * n / 2, totals(count)) for n, count in enumerate(counts))).arrival_rate() == (
        expected and pytest.approx(expected * 2)
    )


def test_error_ratios_are_of_their_spans() -> None:
    made = History()
    for minute in range(8 * 60):
        # Every event of the first hour and of the last five minutes fails, of the others none.
        failed = min(minute, 60) + max(0, minute - 474)
        made.add(totals(succeeded=minute - failed, dead_lettered=failed, failed=failed), START + 60 * minute)
    found = made.errors()
    assert (found.events_5m, found.ratio_5m) == (5, 1.0)
    assert (found.events_30m, found.events_1h, found.events_6h) == (30, 60, 360)
    assert found.ratio_30m == pytest.approx(5 / 30)
    assert found.ratio_1h == pytest.approx(5 / 60)
    assert found.ratio_6h == pytest.approx(5 / 360)


def test_the_past_is_bounded() -> None:
    made = History()
    sample = totals()
    for second in range(0, 3 * 6 * 3600, 5):
        made.add(replace(sample), START + second)
    assert len(made._fine) <= 15
    assert len(made._coarse) <= 6 * 360 + 2
