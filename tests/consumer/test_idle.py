"""A run that ends when it is idle: the time of its start, and of what holds its process up, is no idle time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from infertool.brokers.memory.server import Server
from infertool.consumer import consumer as consumer_module
from infertool.consumer.consumer import Until
from infertool.consumer.in_flight import InFlight
from tests.consumer.test_on_memory import Recorder, Run

POLL_S = 0.01
CHECKS = 20
# Longer than the run may be idle.
LONGER_S = 2 * CHECKS * POLL_S


def checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held_up_at: int | None = None) -> int:
    """Run a consumer of an empty queue to its end; return how often it looked. At one look its process may be slow."""
    looks: list[float] = []
    wait_full = InFlight.wait_full

    def counted(in_flight: InFlight, timeout_s: float) -> bool:
        looks.append(timeout_s)
        if len(looks) == held_up_at:
            time.sleep(LONGER_S)
        return wait_full(in_flight, timeout_s)

    monkeypatch.setattr(consumer_module, "POLL_S", POLL_S)
    monkeypatch.setattr(InFlight, "wait_full", counted)
    with Server("idle") as server:
        Run(server, tmp_path, Until(idle_s=CHECKS * POLL_S)).wait_ended()
    return len(looks)


def test_a_slow_start_is_no_idle_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Recorder, "start", lambda _publisher: time.sleep(LONGER_S))
    assert checks(monkeypatch, tmp_path) >= CHECKS


def test_a_process_that_is_held_up_is_not_idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert checks(monkeypatch, tmp_path, held_up_at=2) >= CHECKS
