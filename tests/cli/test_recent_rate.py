"""Rates of a progress are those of its last seconds: what stands still shows it."""

from __future__ import annotations

import pytest

from infertool.cli.call.run import Outcome
from infertool.cli.call.view import progress as call_progress
from infertool.cli.common import recent_rate
from infertool.cli.common.recent_rate import SPAN_S, RecentRate
from infertool.cli.replay_dlq import view
from infertool.deadletters.replay.decide import Fate, Plan
from infertool.deadletters.replay.progress import Tally


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("every_s", [0.25, 1.0, 5.0])
def test_it_covers_the_last_seconds(every_s: float) -> None:
    clock = Clock()
    rate, count = RecentRate(clock), 0
    assert rate.of(0) == 0.0

    def pass_time(seconds: float, per_s: float) -> list[float]:
        nonlocal count
        found = []
        for _ in range(int(seconds / every_s)):
            clock.now += every_s
            count += int(per_s * every_s)
            found.append(rate.of(count))
        return found

    assert pass_time(60, 40) == pytest.approx([40.0] * int(60 / every_s))
    still = pass_time(30, 0)
    assert still[int(SPAN_S / every_s) + 1 :] == [0.0] * (len(still) - int(SPAN_S / every_s) - 1)
    assert pass_time(30, 400)[-1] == pytest.approx(400)
    count = 0  # what was counted is taken back
    assert rate.of(0) == 0.0


def test_a_replay_that_stands_still_shows_no_rate_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, tally = Clock(), Tally()
    monkeypatch.setattr(view, "RecentRate", lambda: recent_rate.RecentRate(clock))
    progress = view._Progress(tally, Plan(queue="q", run="r", began=0.0, depth=600), quiet=False, new_letters=None)
    for _ in range(5):
        clock.now += 1
        tally.fates[Fate.REPLAY] += 80
        line = progress._line()
    assert line.endswith("400 of 600, 400 replayed, 80/s, 2 s left")
    for _ in range(12):
        clock.now += 1
        line = progress._line()
    assert line.endswith("400 of 600, 400 replayed, 0/s, - s left")
    tally.staged, tally.restored = 5, 3
    assert progress._line() == "400 replayed, 0/s, 3 of 5 put back"


def test_the_progress_of_calls_shows_the_rate_it_is_given() -> None:
    assert call_progress(Outcome(calls=7, answered=6), 9, 1.6) == "7 of 9 calls, 1 without a result, 2/s"
