"""Times of confirmations: one publication every 10 ms, also while others wait, and each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from infertool.publishers.local import LocalPublisher, discard
from infertool.publishers.port import Confirmation, Publication, Rejection
from infertool.publishers.timed import TimedPublisher
from infertool.telemetry.signals import ConfirmTimes, Signal


class Slow(LocalPublisher[str]):
    """Confirms when it is told to."""

    def publish(self, publications: Sequence[Publication[str]], *, crashes: int = 0) -> None:
        """Confirm nothing."""

    def settle(self, confirmed: Sequence[Publication[str]], rejected: Sequence[Publication[str]] = ()) -> None:
        self._on_settled(
            [Confirmation(each, "reply") for each in confirmed], [Rejection(each, "no") for each in rejected]
        )


def test_each_publication_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("infertool.publishers.timed.time.monotonic", lambda: now)
    signals: list[Signal] = []
    settled: list[str] = []
    slow = Slow("slow", discard)
    publisher = TimedPublisher[str](slow, signals.append)

    def take(confirmed: Sequence[Confirmation[str]], rejected: Sequence[Rejection[str]]) -> None:
        settled.extend(each.publication.context for each in confirmed)
        settled.extend(each.publication.context for each in rejected)

    publisher.report_to(take)
    first, second, third, fourth, fifth = (Publication("new_result", name, b"{}", name) for name in "abcde")
    publisher.publish([first, second])
    now = 1.0
    publisher.publish([third, fourth])
    # Too soon after the last one.
    publisher.publish([fifth])
    now = 4.0
    slow.settle([first, second, third, fifth], [fourth])
    [told] = signals
    assert isinstance(told, ConfirmTimes)
    assert replace(told, seconds=sorted(told.seconds, reverse=True)) == ConfirmTimes([4.0, 3.0])
    assert settled == ["a", "b", "c", "e", "d"]
    # A second confirmation, as after a reconnect, is no time.
    slow.settle([first])
    slow.settle([], [second])
    assert len(signals) == 1
    # One that is published again is timed from then on.
    publisher.publish([first])
    now = 4.5
    slow.settle([first])
    assert signals[1:] == [ConfirmTimes([0.5])]
