"""Live is only what a restart cures; ready is what it takes to take and confirm events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infertool.telemetry import health
from infertool.telemetry.details import Details
from infertool.telemetry.signals import Ticks
from infertool.telemetry.stats import Report, Stats

NOW, STUCK_AFTER = 10_000.0, 300.0
UP = {"broker": "connected", "phoenix": "connected"}


Times = dict[str, float | None]


def report(*, ticks: Times | None = None, times: Times | None = None, **changes: Any) -> Report:
    """Return the report of a consumer that is well and idle; `times` are seconds ago."""
    ago: Times = {"reported_at": 1.0, "started_at": 9000.0, "received_at": 8000.0, "settled_at": 8000.0, "made_at": 0.0}
    measured: Any = {"reader_s": 0.1, "watchdog_s": 1.0, "call_s": 0.5, "call_limit_s": 30.0}
    moments: Any = {name: None if s is None else NOW - s for name, s in (ago | (times or {})).items()}
    details = Details(ticks=Ticks(**(measured | (ticks or {}))), link_since=dict.fromkeys(UP, NOW - 8500), **moments)
    well = replace(Stats().report(), links=UP, window=200, in_progress=0, waiting=0, details=details)
    return replace(well, **changes)


def failed(found: Report) -> list[str]:
    return [each.name for each in health.live(found, NOW, STUCK_AFTER) if not each.ok]


FULL: dict[str, Any] = {"window": 200, "in_progress": 200}
LOST = {"broker": "connected", "phoenix": "lost"}
RECENT: Times = {"received_at": 299.0, "settled_at": 299.0}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (report(), []),
        (replace(Stats().report(), details=None), []),
        (replace(Stats().report(), details=Details(made_at=NOW - 29.0)), []),
        (replace(Stats().report(), details=Details(made_at=NOW - 31.0)), ["process"]),
        (report(times={"made_at": 31.0, "reported_at": 31.0}), ["process", "gauge"]),
        (report(times={"reported_at": 31.0}), ["gauge"]),
        (report(ticks={"reader_s": 31.0}), ["reader"]),
        (report(ticks={"reader_s": None}), []),
        (report(ticks={"watchdog_s": 31.0}), ["watchdog"]),
        (report(ticks={"watchdog_s": 31.0, "call_limit_s": 600.0}), []),
        (report(ticks={"call_s": 59.0}), []),
        (report(ticks={"call_s": 61.0}), ["calls"]),
        # Messages wait, and none comes.
        (report(waiting=1), ["progress"]),
        (report(waiting=1, times=RECENT), []),
        (report(waiting=None), []),
        (report(waiting=1, links=LOST), []),
        (report(waiting=1, links={}), []),
        (report(waiting=1, paused=True), []),
        (report(waiting=1, circuit="open"), []),
        (report(waiting=1, circuit="half-open"), []),
        (report(waiting=1, circuit="closed"), ["progress"]),
        (report(waiting=1, times={"received_at": None, "settled_at": None, "started_at": 299.0}), []),
        # The window is full, and nothing ends.
        (report(**FULL), ["progress"]),
        (report(**FULL, times={"settled_at": 299.0}), []),
        (report(**FULL, times={"received_at": 1.0}), ["progress"]),
        (report(**FULL, links=LOST), []),
        (report(**FULL, paused=True), []),
        (report(**FULL, circuit="open"), []),
        # Calls are in progress, or something outside is waited for: a restart would find the same.
        (report(**FULL, times={"called_at": 299.0}), []),
        (report(**FULL, times={"called_at": 301.0}), ["progress"]),
        (report(**FULL, unconfirmed=1), []),
        (report(**FULL, times={"held_until": 299.0}), []),
        (report(**FULL, times={"held_until": -3600.0}), []),
        (report(**FULL, times={"held_until": 301.0}), ["progress"]),
        (report(waiting=1, unconfirmed=1, times={"called_at": 1.0, "held_until": 1.0}), ["progress"]),
        (report(window=0, in_progress=0), []),
    ],
)
def test_what_is_not_live(found: Report, expected: list[str]) -> None:
    assert failed(found) == expected


@pytest.mark.parametrize(
    ("found", "stuck"),
    [
        (report(**FULL), True),
        (report(**FULL, unconfirmed=1), True),
        (report(**FULL, times={"held_until": 1.0}), True),
        (report(**FULL, times={"called_at": 1.0}), True),
        (report(waiting=1), True),
        (report(), False),
    ],
)
def test_nothing_moves_also_where_a_restart_would_find_the_same(found: Report, stuck: bool) -> None:
    assert found.details
    assert health.is_stuck(found, found.details, NOW, STUCK_AFTER) is stuck


def test_a_connection_that_came_back_is_given_its_time() -> None:
    found = report(waiting=1)
    assert found.details
    back = replace(found, details=replace(found.details, link_since={"broker": NOW - 8500, "phoenix": NOW - 299}))
    assert failed(back) == []


@pytest.mark.parametrize(
    ("found", "publishes", "stopping", "expected"),
    [
        (report(), True, False, []),
        (report(links={"broker": "connected"}), True, False, ["phoenix"]),
        (report(links={"broker": "connected"}), False, False, []),
        (report(links=LOST), True, False, ["phoenix"]),
        (report(links={"broker": "connecting", "phoenix": "connected"}), True, False, ["broker"]),
        (report(links={}), True, False, ["broker", "phoenix"]),
        (report(circuit="open"), True, False, ["model"]),
        (report(circuit="half-open"), True, False, []),
        (report(), True, True, ["stopping"]),
        (report(waiting=1), True, False, []),
    ],
)
def test_what_is_not_ready(found: Report, publishes: bool, stopping: bool, expected: list[str]) -> None:
    conditions = health.ready(found, publishes=publishes, stopping=stopping)
    assert [each.name for each in conditions if not each.ok] == expected
    assert all(each.value for each in conditions)
