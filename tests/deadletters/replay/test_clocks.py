"""The operator's clock differs from the others': what was there at the start is dealt with all the same."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime

import pytest

from infertool.brokers.stomp.conventions import CONVENTIONS
from infertool.deadletters import letters
from infertool.deadletters import record as clock
from infertool.deadletters.replay.decide import Decider, Fate, Plan
from tests.deadletters.replay.conftest import DeadLetters
from tests.support.messages import message

OURS = {"dlq_format": "infertool/1", "dlq_stage": "infer"}


def iso(ahead_s: float) -> str:
    return datetime.fromtimestamp(time.time() + ahead_s, UTC).isoformat()


def clock_set(ahead_s: float) -> str:
    """Return code that sets a process's clock."""
    return f"import time; real = time.time; time.time = lambda: real() + {ahead_s};"


def fill(dead: DeadLetters, count: int, ahead_s: float = 0.0) -> None:
    dead.fill(count, dlq_failed_at=iso(ahead_s).replace(":", "\\c"))


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_all_are_replayed_and_the_skew_is_told(dead: DeadLetters, ahead_s: int) -> None:
    fill(dead, 30)
    done = dead.run_limited(clock_set(ahead_s))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["replayed"] == 30
    assert "clocks differ from this machine's" in done.stderr
    assert ("s ahead" if ahead_s < 0 else "s behind") in done.stderr
    assert dead.numbers(dead.origin) == list(range(30))


def test_a_consumer_whose_clock_is_ahead(dead: DeadLetters) -> None:
    fill(dead, 30, ahead_s=3600)
    summary = dead.replay()
    assert summary["replayed"] == 30
    assert "the newest letter is dated" in summary["said"]
    assert dead.numbers(dead.origin) == list(range(30))


def test_a_dry_run_counts_them_too(dead: DeadLetters) -> None:
    fill(dead, 3)
    done = dead.run_limited(clock_set(-3600), "--dry-run")
    assert "3 match" in done.stderr
    assert "the newest letter is dated" in done.stderr


def test_with_a_selector_no_depth_bounds_it(dead: DeadLetters) -> None:
    fill(dead, 10, ahead_s=3600)
    assert dead.replay("--selector", "dlq_stage = 'infer'")["replayed"] == 10


def test_with_clocks_that_agree_nothing_is_told(dead: DeadLetters) -> None:
    fill(dead, 3, ahead_s=-60)
    assert "clocks differ" not in dead.replay()["said"]


def test_the_start_is_told_by_those_who_wrote_the_letters() -> None:
    at = datetime(2026, 1, 31, tzinfo=UTC).timestamp()
    seen = [
        letters.read(message(given=OURS, dlq_failed_at="2026-01-31T00:00:10Z")),
        letters.read(message()),
    ]
    assert clock.start(at + 60, seen) == (at + 60, 0.0)
    assert clock.start(at, seen) == (math.inf, 10.0)
    assert clock.start(at, []) == (at, 0.0)


@pytest.mark.parametrize(("depth", "fate"), [(5, Fate.REPLAY), (None, Fate.NEW)])
def test_only_where_the_depth_is_not_known_a_time_bounds_the_run(depth: int | None, fate: Fate) -> None:
    decider = Decider(Plan(queue="/queue/dead", run="r", began=0.0, depth=depth, to="/queue/in"), CONVENTIONS)
    late = {**OURS, "dlq_failed_at": "2026-01-31T00:00:00Z"}
    assert decider.decide(message(given=late)).fate is fate
    assert decider.decide(message(replay_id="r-1", given=late)).fate is Fate.NEW
