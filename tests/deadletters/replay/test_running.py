"""While it runs: other operators, interruption, events that fail again."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from infertool import brokers
from infertool.brokers.port import Broker
from infertool.deadletters.replay.progress import Pace
from tests.deadletters.replay.conftest import DeadLetters
from tests.deadletters.replay.test_deaths import LONG_S, wait_until_moving
from tests.support.brokers import settings
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, infertool


@pytest.fixture
def watch(dead: DeadLetters) -> Iterator[Broker]:
    broker = brokers.open(settings(dead.broker.url))
    broker.connect()
    yield broker
    broker.close(5)


def test_a_second_run_on_the_queue_refuses_unless_forced(dead: DeadLetters, watch: Broker) -> None:
    dead.fill(100)
    first = dead.start("--rate", "0.2/s")  # longer than anything here takes
    assert wait_until_moving(watch, dead, first.process)
    refused = infertool(*dead.arguments("--to", "other"), **CREDENTIALS)
    assert refused.returncode == 1
    assert f"(process {first.process.pid})" in refused.stderr
    dead.replay("--to", f"{dead.origin}.forced", "--force", "--where", "n >= 0", code=4)
    first.terminate()
    first.process.communicate(timeout=LONG_S)
    assert dead.replay()["replayed"] > 0
    assert sorted(dead.numbers(dead.origin)) == list(range(100))


def test_an_interruption_says_what_was_moved_and_puts_the_rest_back(dead: DeadLetters, watch: Broker) -> None:
    dead.fill(300)
    run = dead.start("--where", "n % 2 == 0", "--rate", "1/s")
    assert wait_until_moving(watch, dead, run.process)
    run.process.send_signal(signal.SIGINT)
    output, _ = run.process.communicate(timeout=LONG_S)
    assert run.process.returncode == 130
    summary = json.loads(output)
    there, here = dead.numbers(dead.origin), dead.numbers(dead.queue)
    assert 0 < summary["replayed"] < 150
    assert there == list(range(0, 2 * summary["replayed"], 2))
    assert sorted(here) == sorted(set(range(300)) - set(there))
    assert summary["left_in_staging"] == 0


class Failing:
    """Takes events, and makes each a dead letter again: what a consumer with a broken model does."""

    def __init__(self, dead: DeadLetters) -> None:
        self._dead = dead
        self._raw = RawStomp(dead.broker.stomp_port)
        self._changed = threading.Condition()
        self._failed = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._raw._write("SUBSCRIBE", {"id": "1", "destination": dead.origin, "ack": "auto"}, b"")
        self._thread.start()

    def _run(self) -> None:
        dead_letter = RawStomp(self._dead.broker.stomp_port)
        while True:
            try:
                command, headers, body = self._raw._frame(LONG_S)
            except (OSError, AssertionError):
                return
            assert command == "MESSAGE"
            kept = {key: headers[key] for key in ("event_id", "replay_count", "replay_id")}
            letter = self._dead.letter(0, **kept, dlq_failed_at=time.strftime("2099-%m-%dT%H\\c%M\\c%SZ"))
            dead_letter.send(self._dead.queue, [(letter, body)])
            with self._changed:
                self._failed += 1
                self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait until that many events have failed; none may fail after that."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._failed >= count, LONG_S), self._failed
            assert self._failed == count

    def close(self) -> None:
        self._raw._socket.shutdown(2)
        self._thread.join(LONG_S)
        self._raw.close()


def test_events_that_fail_again_are_told_of_and_stop_it(dead: DeadLetters) -> None:
    dead.fill(100)
    failing = Failing(dead)
    done = dead.replay("--rate", "4/s", "--abort-on-refail", "5", code=1)
    assert done["ended"] == "failed again"
    assert 5 <= done["failed_again"] <= done["replayed"] < 100
    assert "have failed again" in done["said"]
    failing.wait_for(done["replayed"])  # what is on its way when the connection ends is lost
    failing.close()
    assert sorted(dead.numbers(dead.queue)) == list(range(100))


def test_new_deaths_behind_a_deep_queue_are_told_of_at_once(dead: DeadLetters) -> None:
    dead.fill(600)
    failing = Failing(dead)
    said = dead.replay("--rate", "40/s", "--limit", "150")["said"]
    failing.close()
    assert f"new dead letters have come to {dead.queue}" in said


def test_new_failures_do_not_loop(dead: DeadLetters) -> None:
    dead.fill(500)
    failing = Failing(dead)
    summary = dead.replay("--where", "n >= 0", "--max-replays", "50")
    assert summary["replayed"] == 500
    failing.wait_for(500)
    failing.close()


def test_replayed_and_failed_again_and_again_it_stops_at_the_limit(dead: DeadLetters) -> None:
    dead.fill(3)
    failing = Failing(dead)
    replayed = []
    for n in range(1, 4):
        replayed.append(dead.replay("--max-replays", "3")["replayed"])
        failing.wait_for(3 * n)
        # Their deaths are written in the future, so that "arrived after the start" cannot hide them.
        letters = dead.drain(dead.queue)
        dead.put((dead.letter(0, replay_count=headers["replay_count"]), body) for headers, body in letters)
    failing.close()
    assert replayed == [3, 3, 3]
    stays = dead.replay("--max-replays", "3", code=4)
    assert "replayed 3 times" in stays["said"]
    assert sorted(dead.numbers(dead.queue)) == [0, 1, 2]


def test_a_pace_begins_slowly_and_makes_nothing_up() -> None:
    now = [0.0]

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            now[0] += max(timeout or 0.0, 0.0)
            return False

    pace = Pace(100.0, Stop(), clock=lambda: now[0])
    sent = 0
    while now[0] < 10:
        group = pace.group()
        assert pace.wait(group)
        sent += group
    assert 450 < sent < 650, "from 10/s to 100/s in 10 s"
    now[0] += 100
    begin = now[0]
    for _ in range(50):
        pace.wait(20)
    assert 9.5 < now[0] - begin < 10.5
