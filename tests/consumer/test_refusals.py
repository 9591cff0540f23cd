"""What follows a refusal: tries, minimal alerts, kept events; never a dead letter without its alert."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import orjson
import pytest

from infertool.consumer import router
from infertool.consumer.attempt import Event, FailedEvent, Failure, Outcome
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.documents import Documents
from infertool.consumer.in_flight import InFlight
from infertool.consumer.router import Published, Router, Rules
from infertool.consumer.settlement import Settlement
from infertool.net.timing import FullJitter, Schedule
from infertool.publishers.local import LocalPublisher, discard
from infertool.publishers.port import Confirmation, Publication, Rejection
from infertool.telemetry import signals as o
from tests.consumer.harness import OnlyAcks
from tests.support.messages import message

REFUSALS = 3
Push = Publication[Published]


class Phoenix(LocalPublisher[Published]):
    """A publisher whose channel answers each publication with what `answer` says: None confirms, a text rejects."""

    def __init__(self, answer: Callable[[Push], str | None], crashes: int) -> None:
        super().__init__("Phoenix", discard)
        self.answer = answer
        self.crashes = crashes
        self.pushed: list[Push] = []
        self.announced: list[int] = []
        self.dead_lettered: list[FailedEvent] = []
        self.changed = threading.Condition()
        self.router: Router

    def publish(self, publications: Sequence[Push], *, crashes: int = 0) -> None:
        for push in publications:
            with self.changed:
                self.pushed.append(push)
                self.announced.append(crashes)
                self.changed.notify_all()
            rejection = self.answer(push)
            if rejection:
                self.router.settled([], [Rejection(push, rejection, self.crashes)])
            else:
                self.router.settled([Confirmation(push, "reply")], [])

    def dead_letter(self, dead: Sequence[FailedEvent]) -> None:
        with self.changed:
            self.dead_lettered += dead
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 90)

    def submit(self, events: Sequence[Event]) -> None:
        raise AssertionError("an event is tried again")


class Run:
    """A router over such a publisher."""

    def __init__(self, tmp_path: Path, answer: Callable[[Push], str | None], crashes: int = 0) -> None:
        self.warnings: list[str] = []
        self.fatal: list[BaseException] = []
        self.phoenix = Phoenix(answer, crashes)
        rules = Rules(max_attempts=1, max_rejections=REFUSALS, backoff=FullJitter(0.001, 0.001))
        documents = Documents(include_payload=True, max_bytes=1_000_000)
        in_flight = InFlight(memory=100)
        guard = CrashGuard(tmp_path, broker="b", queue="q", observe=self.observe)
        # What the router needs of a dead-letter writer, an executor and a publisher is in one.
        settlement = Settlement(OnlyAcks(), in_flight, guard, self.phoenix, 200, self.observe)
        self.router = Router(
            rules, documents, self.phoenix, self.phoenix, settlement, self.observe, fail=self.fatal.append
        )
        self.phoenix.router = self.router
        self.event = Event(message(body=b'{"a":"secret"}'), "e1", "r1", {"a": "secret"}, attempts=1)
        self.router.start()

    def observe(self, signal: o.Signal) -> None:
        if isinstance(signal, o.Warned):
            self.warnings.append(signal.text)

    def succeed(self) -> None:
        self.router.outcomes([Outcome(self.event, {"class": "A"}, 0.1)])

    def fail(self) -> None:
        self.router.outcomes([Outcome(self.event, failure=Failure("infer", "ValueError", "secret text"))])


Runs = Callable[..., Run]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    monkeypatch.setattr(router, "AFTER_AN_ANSWER", Schedule((0.01,)))
    monkeypatch.setattr(router, "AFTER_A_CRASH", Schedule((0.01,)))
    made: list[Run] = []

    def make(answer: Callable[[Push], str | None], crashes: int = 0) -> Run:
        made.append(Run(tmp_path, answer, crashes))
        return made[-1]

    yield make
    for run in made:
        run.router.stop()


def is_alert(push: Push) -> bool:
    return push.event == "inference_failed"


def holds_payload(push: Push) -> bool:
    return b"secret" in push.payload


def test_a_refused_result_is_tried_then_reported(runs: Runs) -> None:
    run = runs(lambda push: None if is_alert(push) else "bad")
    run.succeed()
    run.phoenix.wait_for(lambda: run.phoenix.dead_lettered)
    assert [push.event for push in run.phoenix.pushed] == ["new_result"] * REFUSALS + ["inference_failed"]
    [dead] = run.phoenix.dead_lettered
    assert (dead.failure.stage, dead.failure.error_type) == ("publish", "PushRefused")


def test_a_result_that_crashes_the_channel_is_not_pushed_again(runs: Runs) -> None:
    """Nor what it holds: its alert is the least that can be said, and goes alone."""
    run = runs(lambda push: None if is_alert(push) else "channel crashed", crashes=2)
    run.succeed()
    run.phoenix.wait_for(lambda: run.phoenix.dead_lettered)
    result, alert = run.phoenix.pushed
    assert (result.event, alert.event) == ("new_result", "inference_failed")
    assert not holds_payload(alert)
    assert run.phoenix.announced == [0, 2]
    document = orjson.loads(alert.payload)
    assert (document["event_id"], document["status"], document["stage"]) == ("e1", "FAILED", "publish")
    assert document["request_id"] == "r1"


@pytest.mark.parametrize("crashes", [0, 2])
def test_a_refused_alert_is_pushed_without_its_payload(runs: Runs, crashes: int) -> None:
    run = runs(lambda push: "bad alert" if holds_payload(push) else None, crashes)
    run.fail()
    run.phoenix.wait_for(lambda: run.phoenix.dead_lettered)
    assert [holds_payload(push) for push in run.phoenix.pushed] == [True] * (1 if crashes else REFUSALS) + [False]
    assert not run.warnings


@pytest.mark.parametrize("crashes", [0, 2])
def test_without_an_alert_there_is_no_dead_letter(runs: Runs, crashes: int) -> None:
    refused = True
    run = runs(lambda _: "no alerts" if refused else None, crashes)
    run.fail()
    run.phoenix.wait_for(lambda: len(run.phoenix.pushed) > REFUSALS + 4)
    assert not run.phoenix.dead_lettered
    [warning] = run.warnings
    assert "inference_failed e1" in warning
    assert "no alerts" in warning
    assert run.router.held_alerts().count == 1
    assert run.router.held_alerts().oldest_s > 0
    refused = False
    run.phoenix.wait_for(lambda: run.phoenix.dead_lettered)
    assert run.router.held_alerts().count == 0
    assert len(run.phoenix.dead_lettered) == 1


def test_each_event_that_is_kept_is_told_of_once(runs: Runs) -> None:
    run = runs(lambda _: "no alerts")
    for number in range(3):
        run.event = Event(message(message_id=f"m{number}"), f"e{number}", payload={}, attempts=1)
        run.fail()
    deadline = time.monotonic() + 90
    while len(run.warnings) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    run.phoenix.wait_for(lambda: len(run.phoenix.pushed) > 30)
    assert len(run.warnings) == 3
    assert "3 are kept" in run.warnings[-1]
