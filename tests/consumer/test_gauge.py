"""The gauge asks the broker how many messages wait, and stops where there is no answer ever."""

from __future__ import annotations

from collections import deque

import pytest

from infertool.brokers.port import Depth
from infertool.consumer import gauge as gauge_module
from infertool.consumer.gauge import MOST_UNANSWERED, Gauge
from infertool.telemetry.signals import NONE_UNCONFIRMED, InProgress, Signal
from tests.consumer.harness import wait_until


class Asked:
    """A broker that gives these answers, then the last one again and again."""

    def __init__(self, *answers: int | None) -> None:
        self._answers = deque(answers)
        self.count = 0
        self.told: list[int | None] = []
        self.reports = 0

    def measure(self, _timeout_s: float) -> Depth | None:
        self.count += 1
        size = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        return None if size is None else Depth(size=size)

    def observe(self, signal: Signal) -> None:
        if isinstance(signal, InProgress):
            self.told.append(signal.waiting)
            self.reports += 1


def gauge_of(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Gauge:
    for name in ("REPORT_S", "ASK_S", "LOOK_S"):
        monkeypatch.setattr(gauge_module, name, 0.001)
    return Gauge(
        in_progress=lambda: 0,
        window=lambda: 1,
        measure=asked.measure,
        pending=lambda: NONE_UNCONFIRMED,
        observe=asked.observe,
        fail=lambda _error: None,
    )


def test_a_broker_that_never_answers_is_asked_no_more_until_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(None)
    gauge = gauge_of(asked, monkeypatch)
    gauge.start()
    wait_until(lambda: asked.reports > 10 * MOST_UNANSWERED)
    assert asked.count == MOST_UNANSWERED
    gauge.reconnected()
    wait_until(lambda: asked.count == 2 * MOST_UNANSWERED)
    gauge.stop()


def test_a_broker_that_was_busy_is_asked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(5, *[None] * (MOST_UNANSWERED + 2), 7)
    gauge = gauge_of(asked, monkeypatch)
    gauge.start()
    wait_until(lambda: 7 in asked.told)
    gauge.stop()
    assert asked.told[0] == 5
    assert None in asked.told
