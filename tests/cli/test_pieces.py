from __future__ import annotations

import logging
from typing import Any

import pytest

from infertool.channels.event import ChannelEvent
from infertool.cli.common.eventlines import line
from infertool.cli.main import globals_first
from infertool.errors import UsageError
from infertool.telemetry.logs import TextFormatter
from infertool.text.input import parse_capacity, parse_duration


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["consume", "--debug"], ["--debug", "consume"]),
        (["consume", "--config", "f.toml", "--queue", "q"], ["--config", "f.toml", "consume", "--queue", "q"]),
        (["tail", "t", "--profile=x"], ["--profile=x", "tail", "t"]),
        (["tail", "--", "--debug"], ["tail", "--", "--debug"]),
        ([], []),
    ],
)
def test_global_options_may_be_given_anywhere(typed: list[str], parsed: list[str]) -> None:
    assert globals_first(typed) == parsed


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("10s", 10), ("2m", 120), ("1h", 3600), ("1.5", 1.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 years", "1e3", "inf", "nan"])
def test_the_error_for_an_invalid_duration_shows_a_valid_one(text: str) -> None:
    with pytest.raises(UsageError, match="10s"):
        parse_duration(text)


def test_capacities() -> None:
    assert parse_capacity("10000:5m") == (10_000, 300.0)


@pytest.mark.parametrize("text", ["", "10000", ":5m", "10000:", "0:5m", "-1:5m", "1:0s", "1e4:5m", "5m:10000"])
def test_the_error_for_an_invalid_capacity_shows_a_valid_one(text: str) -> None:
    with pytest.raises(UsageError, match="write for example"):
        parse_capacity(text)


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x1b]52;c;x\x07", "\u202e", "\x9b31m", "\r", "\n", "\0", "\ud800"])
def test_texts_of_events_are_escaped_on_the_terminal(evil: str) -> None:
    payload = {"status": "SUCCESS", "request_id": evil, "prediction": {}}
    shown = line(ChannelEvent("public:results", "new_result", payload, 0))
    assert evil not in shown
    assert shown.isprintable()


@pytest.mark.parametrize("evil", ["\x1b[2J", "\u202e", "\r", "\n", "\ud800"])
def test_texts_of_events_are_escaped_in_the_log(evil: str) -> None:
    record = logging.LogRecord("infertool", logging.WARNING, "", 0, "%s failed", (evil,), None)
    assert TextFormatter().format(record).isprintable()


def test_unusual_payloads_have_a_line() -> None:
    payloads: list[Any] = [None, [], {}, {"status": "SUCCESS"}, {"status": "FAILED"}, b"\0\1", 1e300, {"prediction": 1}]
    for payload in payloads:
        assert line(ChannelEvent("t", "e", payload, 0))
