"""Packages that log without signals: their repeats are summed up, and nothing is lost."""

from __future__ import annotations

import logging

import pytest

from infertool.telemetry import logs
from infertool.telemetry.summing import summed_up

PACKAGE = "infertool.tests_summing"
LOG = logging.getLogger(f"{PACKAGE}.module")


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logs.log, "propagate", True)
    caplog.set_level(logging.INFO, "infertool")
    return caplog


def test_repeats_are_summed_up_until_the_end(written: pytest.LogCaptureFixture) -> None:
    with summed_up(PACKAGE):
        for number in range(50):
            LOG.warning("request %d: the store is full", number)
        LOG.info("it is back")
        LOG.warning("another")
        assert written.messages == ["request 0: the store is full", "it is back", "another"]
    assert len(written.messages) == 4
    assert written.messages[3].startswith("+ 49 more warnings in ")
    assert written.messages[3].endswith("request 49: the store is full")
    LOG.warning("another")
    assert written.messages[4:] == ["another"]


def test_traces_and_lines_at_level_debug_are_not_summed_up(written: pytest.LogCaptureFixture) -> None:
    with summed_up(PACKAGE):
        for _ in range(3):
            LOG.error("a fault", exc_info=ValueError())
        assert [bool(record.exc_info) for record in written.records] == [True] * 3
        written.set_level(logging.DEBUG, "infertool")
        for _ in range(3):
            LOG.warning("again")
    assert written.messages[3:] == ["again"] * 3
