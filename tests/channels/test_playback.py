"""A recording is played in order, completely, and at its recorded intervals."""

from __future__ import annotations

import itertools
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from infertool.channels.event import ChannelEvent
from infertool.channels.recording import AT_ONCE, Playback, RecordError, parse_speed
from infertool.errors import UsageError
from tests.channels.conftest import Collected
from tests.support.present import present

LONG = 120.0


def arrivals(*times: float) -> list[ChannelEvent]:
    return [ChannelEvent("t", "e", number, at) for number, at in enumerate(times)]


class Played:
    def __init__(self, batches: list[Any] | Iterator[Any] | Iterator[list[ChannelEvent]], *, speed: float) -> None:
        self.collected = Collected()
        self.ends: queue.Queue[Exception | None] = queue.Queue()
        self._before = set(threading.enumerate())
        self.playback = Playback(batches, speed=speed, on_events=self.collected, on_end=self.ends.put)
        self.playback.start()

    def is_running(self) -> bool:
        """Return True if a thread of it is there."""
        return any(thread.name == "playback" for thread in set(threading.enumerate()) - self._before)


def test_at_once_takes_no_time_and_bounded_batches() -> None:
    recorded = arrivals(*(n * 1e6 for n in range(1200)))
    played = Played([recorded[:700], recorded[700:]], speed=AT_ONCE)
    assert played.ends.get(timeout=LONG) is None
    assert played.collected.all == recorded
    assert max(map(len, played.collected.batches)) <= 500


def test_no_event_comes_before_its_time() -> None:
    recorded = arrivals(100.0, 100.0, 104.0, 102.0, 106.0)
    began = time.monotonic()
    played = Played([recorded], speed=20)
    assert played.ends.get(timeout=LONG) is None
    assert time.monotonic() - began >= 0.3
    assert played.collected.all == recorded
    assert played.collected.batches[0] == recorded[:2]


def test_stopped_in_the_middle_of_a_wait() -> None:
    played = Played([arrivals(0, 1e9)], speed=1)
    played.collected.wait(1)
    played.playback.stop(LONG)
    assert not played.is_running()
    assert len(played.collected.all) == 1
    assert played.ends.empty()


def test_an_endless_recording_can_be_stopped() -> None:
    played = Played(([ChannelEvent("t", "e", n, 0.0)] for n in itertools.count()), speed=AT_ONCE)
    played.collected.wait(3)
    played.playback.stop(LONG)
    assert not played.is_running()


def test_an_error_while_reading_is_passed_on() -> None:
    def broken() -> Iterator[list[ChannelEvent]]:
        yield arrivals(1.0)
        raise RecordError("r", "cannot be read")

    played = Played(broken(), speed=AT_ONCE)
    assert isinstance(played.ends.get(timeout=LONG), RecordError)
    assert len(played.collected.all) == 1


def test_a_process_ends_while_it_waits_for_standard_input() -> None:
    program = (
        "import time\n"
        "from infertool.channels.recording import Playback\n"
        "from infertool.channels.recording import RecordReader\n"
        "played = Playback(RecordReader('-').batches(), speed=0, on_events=print, on_end=print)\n"
        "played.start(); played.stop(0.2); print('left')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.wait(LONG) == 0
        assert (present(process.stdout).read(), present(process.stderr).read()) == (b"left\n", b"")


@pytest.mark.parametrize(("text", "speed"), [("1", 1), ("0.5", 0.5), ("10", 10), ("max", 0), ("0", 0)])
def test_speeds(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "fast"])
def test_invalid_speeds(text: str) -> None:
    with pytest.raises(UsageError, match="max"):
        parse_speed(text)
