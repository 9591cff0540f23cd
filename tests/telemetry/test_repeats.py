"""Repeated log lines: the first of a kind at once, the others summed up, and no kind hides another."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.telemetry import signals
from infertool.telemetry.logs import MOST_KINDS, Line, LogObserver, Repeats
from tests.support.present import present

NEVER = 3600.0
LONG = 60.0


class Written:
    """The written lines, for which a test can wait."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, dict[str, Any]]] = []
        self._changed = threading.Condition()

    def __call__(self, level: Any, text: Any, fields: Any) -> None:
        with self._changed:
            self.lines.append((level, text, dict(fields)))
            self._changed.notify_all()

    def wait_for(self, condition: Callable[..., Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.lines), LONG), self.lines


def line(kind: str, text: str = "", group: str = "failures", level: int = logging.WARNING) -> Line:
    return Line(level, group, kind, text or kind, {"kind_of": kind})


def test_the_first_of_each_kind_is_written_at_once_and_the_rest_is_summed_up() -> None:
    written = Written()
    repeats = Repeats(written, NEVER)
    for number in range(500):
        repeats.add(line("infer ValueError" if number % 5 else "decode NotJson", f"e-{number} failed"))
    assert [text for _, text, _ in written.lines] == ["e-0 failed", "e-1 failed"]
    repeats.close()
    level, text, fields = written.lines[2]
    kinds = r"2 kinds \(infer ValueError 399, decode NotJson 99\)"
    found = re.fullmatch(rf"\+ 498 more failures in (\d+) s, {kinds}; the latest: e-499 failed", text)
    assert int(present(found)[1]) == fields["seconds"]
    assert level == logging.WARNING
    assert fields["count"] == 498
    assert fields["kinds"] == {"infer ValueError": 399, "decode NotJson": 99}
    assert len(written.lines) == 3


def test_another_group_and_a_new_kind_are_written_at_once() -> None:
    written = Written()
    repeats = Repeats(written, NEVER)
    for _ in range(100):
        repeats.add(line("a"))
    repeats.add(line("b"))
    repeats.add(line("a", group="retries"))
    assert [text for _, text, _ in written.lines] == ["a", "b", "a"]


def test_endless_new_kinds_are_summed_up_too() -> None:
    written = Written()
    repeats = Repeats(written, NEVER)
    for number in range(1000):
        repeats.add(line(f"kind {number}"))
    assert len(written.lines) == MOST_KINDS
    repeats.close()
    assert f"+ {1000 - MOST_KINDS} more failures" in written.lines[-1][1]
    assert len(written.lines[-1][2]["kinds"]) <= MOST_KINDS


def test_a_single_repeat_is_written_as_it_is() -> None:
    written = Written()
    repeats = Repeats(written, NEVER)
    repeats.add(line("a", "first"))
    repeats.add(line("a", "second"))
    repeats.close()
    assert [text for _, text, _ in written.lines] == ["first", "second"]


def test_a_continuing_kind_is_only_summed_and_a_returning_one_is_written() -> None:
    written = Written()
    repeats = Repeats(written, 0.05)
    repeats.add(line("a", "one"))
    repeats.add(line("a", "two"))
    repeats.add(line("a", "three"))
    written.wait_for(lambda lines: any(text.startswith("+ 2 more") for _, text, _ in lines))
    # No line for two intervals: the kind is forgotten, and is news when it comes again.
    over = threading.Event()

    def again() -> None:
        while not over.is_set():
            with repeats._lock:
                if not repeats._groups:
                    over.set()
            over.wait(0.01)

    waiting = threading.Thread(target=again)
    waiting.start()
    waiting.join(LONG)
    repeats.add(line("a", "four"))
    assert written.lines[-1][1] == "four"
    repeats.close()


def test_lines_after_close_are_written() -> None:
    written = Written()
    repeats = Repeats(written, NEVER)
    repeats.close()
    repeats.add(line("a", "one"))
    repeats.add(line("a", "two"))
    assert [text for _, text, _ in written.lines] == ["one", "two"]


def lost(reason: str) -> signals.ConnectionChanged:
    return signals.ConnectionChanged("broker", ConnectionEvent(ConnectionState.LOST, "stomp://h:1", 1, reason, 0.25))


@pytest.mark.parametrize(
    ("signals", "most"),
    [
        ([signals.Failed(f"e-{n}", "decode", "NotJson", f"at byte {n}", 1) for n in range(5000)], 2),
        ([signals.Retried(f"e-{n}", 1, 0.1 * n, f"request {n} timed out") for n in range(5000)], 2),
        ([signals.Warned(f"worker process {n} ended; another takes its place") for n in range(5000)], 2),
        ([lost("Connection refused")] * 5000, 2),
        ([signals.Flow(paused=n % 2 == 0) for n in range(5000)], 3),
        ([signals.Circuit("m", "open" if n % 2 else "half-open", "503", 5.0) for n in range(5000)], 3),
    ],
    ids=["failures", "retries", "warnings", "reconnects", "flow", "circuit"],
)
def test_no_kind_of_signal_floods_the_log(signals: Any, most: int, caplog: pytest.LogCaptureFixture) -> None:
    observe = LogObserver()
    with caplog.at_level(logging.INFO, logger="infertool"):
        for signal in signals:
            observe(signal)
        observe.close()
    assert 0 < len(caplog.records) <= most


def test_debug_writes_every_line(caplog: pytest.LogCaptureFixture) -> None:
    observe = LogObserver()
    with caplog.at_level(logging.DEBUG, logger="infertool"):
        for _ in range(100):
            observe(lost("Connection refused"))
        observe.close()
    assert len(caplog.records) == 100


def test_a_change_of_state_is_logged_at_once_even_in_a_flood(caplog: pytest.LogCaptureFixture) -> None:
    observe = LogObserver()
    with caplog.at_level(logging.INFO, logger="infertool"):
        for _ in range(100):
            observe(lost("Connection refused"))
        observe(signals.ConnectionChanged("broker", ConnectionEvent(ConnectionState.CONNECTED, "stomp://h:1", 2)))
        assert caplog.messages[-1] == "broker connected: stomp://h:1"
        observe(signals.Failed("e-1", "infer", "ValueError", "x", 1))
        assert caplog.messages[-1].startswith("e-1 failed at infer")
        observe.close()
