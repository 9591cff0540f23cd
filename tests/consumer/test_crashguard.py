from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infertool.consumer.attempt import Event
from infertool.consumer.crash_guard import CrashGuard
from infertool.message import Properties, TypedMessage
from infertool.telemetry.signals import Signal, Warned
from tests.support.messages import message

DIE_IN_WORK = """
import os, sys
from pathlib import Path
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.attempt import Event
from tests.support.messages import message
guard = CrashGuard(Path(sys.argv[1]), broker="b", queue="q", observe=print)
events = [Event(message(message_id=name, redelivered=True), name) for name in sys.argv[3:]]
guard.look(events)
failures = []
for event in events:
    if event in guard.suspected:
        guard.begin_alone(event)
    failures.append(guard.begin(event))
    if event is not events[0] and sys.argv[2] == "in turn":
        guard.end_alone(event)
guard.end(events[1:] if sys.argv[2] == "in turn" else [])
print(*("dead" if failure else "alone" if event in guard.suspected else "work"
        for event, failure in zip(events, failures)), flush=True)
os.kill(os.getpid(), 9)
"""


def die_in_work(folder: Path, *names: str, how: str = "in turn") -> str:
    """Run a process that dies with the first of `names` in work and the others settled; return what it decided.

    If `how` is "together", all are in work.
    """
    run = subprocess.run(
        [sys.executable, "-c", DIE_IN_WORK, str(folder), how, *names], capture_output=True, text=True, check=False
    )
    assert run.returncode == -9, run.stderr
    return run.stdout.strip()


def die_twice(folder: Path, name: str) -> None:
    """Have two processes die with an event in work, the second with nothing else."""
    assert die_in_work(folder, name) == "work"
    assert die_in_work(folder, name) == "alone"


def redelivered(name: str) -> Event:
    return Event(message(message_id=name, redelivered=True), name)


def guard_of(folder: Path, observed: list[Signal] | None = None) -> CrashGuard:
    return CrashGuard(folder, broker="b", queue="q", observe=(observed if observed is not None else []).append)


def is_suspect(guard: CrashGuard, event: Event) -> bool:
    guard.look([event])
    return event in guard.suspected


def test_an_event_in_work_at_two_deaths_is_tried_alone_and_refused_after_a_third(tmp_path: Path) -> None:
    assert die_in_work(tmp_path, "killer", "innocent") == "work work"
    assert die_in_work(tmp_path, "killer") == "alone"
    guard = guard_of(tmp_path)
    killer, innocent = redelivered("killer"), redelivered("innocent")
    guard.look([killer, innocent])
    failure = guard.begin(killer)
    assert failure is not None
    assert (failure.stage, failure.retryable) == ("crash", False)
    assert innocent not in guard.suspected
    assert guard.begin(innocent) is None
    guard.close()


def test_of_events_that_were_in_work_together_none_is_refused(tmp_path: Path) -> None:
    names = ("one", "two", "three")
    assert die_in_work(tmp_path, *names, how="together") == "work work work"
    guard = guard_of(tmp_path)
    for event in map(redelivered, names):
        assert is_suspect(guard, event)
        guard.begin_alone(event)
        assert guard.begin(event) is None
        guard.end_alone(event)
        guard.end([event])
    assert not guard.suspected
    guard.close()
    assert not list(tmp_path.rglob("*.notes"))


def test_a_try_alone_that_ended_is_no_evidence(tmp_path: Path) -> None:
    """It waits for its next try, or for the confirmation of its result, while others are in progress."""
    die_in_work(tmp_path, "held")
    guard = guard_of(tmp_path)
    event = redelivered("held")
    assert is_suspect(guard, event)
    guard.begin_alone(event)
    guard.begin(event)
    guard.end_alone(event)
    (notes,) = tmp_path.rglob("*.notes")
    (notes.parent / "1-dead.notes").write_bytes(notes.read_bytes())
    fresh = guard_of(tmp_path)
    again = redelivered("held")
    assert is_suspect(fresh, again)
    assert fresh.begin(again) is None


def test_the_verdict_survives_deaths_before_it_is_carried_out(tmp_path: Path) -> None:
    die_twice(tmp_path, "killer")
    die_in_work(tmp_path, "other", "killer-unrelated")
    die_in_work(tmp_path, "other")
    assert guard_of(tmp_path).begin(redelivered("killer")) is not None


def test_a_guard_that_is_off_refuses_nothing(tmp_path: Path) -> None:
    die_twice(tmp_path, "killer")
    guard = CrashGuard(tmp_path, broker="b", queue="q", observe=print, is_on=False)
    assert not is_suspect(guard, redelivered("killer"))
    assert guard.begin(redelivered("killer")) is None


def test_a_settled_event_leaves_no_trace(tmp_path: Path) -> None:
    die_twice(tmp_path, "killer")
    guard = guard_of(tmp_path)
    event = redelivered("killer")
    assert guard.begin(event) is not None
    guard.end([event])
    guard.close()
    assert not list(tmp_path.rglob("*.notes"))
    assert guard_of(tmp_path).begin(redelivered("killer")) is None


def test_of_two_events_with_one_id_the_one_in_work_stays_noted(tmp_path: Path) -> None:
    assert die_in_work(tmp_path, "same", "same") == "work work"
    assert is_suspect(guard_of(tmp_path), redelivered("same"))


@pytest.mark.parametrize("other", [{"body": b"[]"}, {"source": "/queue/other"}, {"timestamp": "1"}])
def test_another_event_with_the_same_id_is_innocent(tmp_path: Path, other: dict[str, Any]) -> None:
    """The next broker of a failover counts from one again; a business id in `message-id` comes twice."""
    die_twice(tmp_path, "same")
    guard = guard_of(tmp_path)
    innocent = Event(message(message_id="same", redelivered=True, **other), "innocent")
    assert not is_suspect(guard, innocent)
    assert guard.begin(innocent) is None
    guard.end([innocent])
    assert guard.begin(redelivered("same")) is not None


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    mine, other = guard_of(tmp_path), guard_of(tmp_path)
    assert mine.begin(redelivered("a")) is None
    assert other.begin(redelivered("a")) is None
    mine.close()
    other.close()


def test_notes_that_another_consumer_takes_before_they_are_locked_are_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, lock = guard_of(tmp_path), fcntl.flock
    guard, event = guard_of(tmp_path), redelivered("e")

    def be_late(notes: Any, how: int) -> None:
        if how == fcntl.LOCK_EX:
            monkeypatch.undo()  # once
            others.look([event])
        lock(notes, how)

    monkeypatch.setattr(fcntl, "flock", be_late)
    guard.begin(event)
    [notes] = tmp_path.rglob("*.notes")
    assert b"e" in notes.read_bytes()


def test_an_event_seen_first_writes_nothing(tmp_path: Path) -> None:
    guard = guard_of(tmp_path)
    guard.end([Event(message(), "fresh")])
    assert not list(tmp_path.rglob("*"))


def test_a_half_written_note_is_ignored(tmp_path: Path) -> None:
    guard = guard_of(tmp_path)
    guard.begin(redelivered("whole"))
    guard.begin(redelivered("half"))
    (notes,) = tmp_path.rglob("*.notes")
    (notes.parent / "1-cut.notes").write_bytes(notes.read_bytes()[:-2])
    fresh = guard_of(tmp_path)
    assert is_suspect(fresh, redelivered("whole"))
    assert not is_suspect(fresh, redelivered("half"))


DIE_AFTER_MANY = """
import os, sys
from pathlib import Path
from infertool.consumer import crash_guard
from infertool.consumer.attempt import Event
from tests.support.messages import message
crash_guard.RENEW_BYTES = 2000
guard = crash_guard.CrashGuard(Path(sys.argv[1]), broker="b", queue="q", observe=print)
suspect, *twins, waits = [Event(message(message_id=name, redelivered=True), name) for name in ("s", "t", "t", "w")]
guard.look([suspect])
guard.begin_alone(suspect)
for event in (suspect, *twins):
    guard.begin(event)
for _ in range(1000):
    guard.begin(waits)
    guard.end([waits])
guard.end(twins[:1])
os.kill(os.getpid(), 9)
"""


def test_events_that_wait_for_days_fill_no_disk_and_what_is_in_work_stays_noted(tmp_path: Path) -> None:
    die_in_work(tmp_path, "s")
    subprocess.run([sys.executable, "-c", DIE_AFTER_MANY, str(tmp_path)], check=False)
    [notes] = tmp_path.rglob("*.notes")
    assert notes.stat().st_size < 4000
    guard = guard_of(tmp_path)
    suspect, twin, waits = map(redelivered, ("s", "t", "w"))
    guard.look([suspect, twin, waits])
    assert (guard.suspected, guard.begin(suspect) is None) == ({suspect, twin}, False)


def test_ids_with_line_ends_are_kept_apart(tmp_path: Path) -> None:
    die_twice(tmp_path, "a\nb\u2028c")
    guard = guard_of(tmp_path)
    assert guard.begin(redelivered("a")) is None
    assert guard.begin(redelivered("a\nb\u2028c")) is not None


def test_a_folder_that_cannot_be_written_warns_once_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    observed: list[Signal] = []
    guard = guard_of(tmp_path / "file", observed)
    assert guard.begin(redelivered("a")) is None
    assert guard.begin(redelivered("b")) is None
    assert [type(signal) for signal in observed] == [Warned]


@pytest.mark.parametrize(("count", "suspected", "refused"), [
    (None, True, True), (1, False, False), (2, True, False), (3, True, True), (7, True, True),
])  # fmt: skip
def test_it_was_delivered_at_each_death_where_the_broker_counts(
    tmp_path: Path, count: int | None, suspected: bool, refused: bool
) -> None:
    die_twice(tmp_path, "killer")
    delivery = redelivered("killer").message
    counted = TypedMessage(
        delivery.id, delivery.source, {}, delivery.body, delivery.kind, redelivered=True, epoch=1, token="t",
        known=Properties(delivery_count=count),
    )  # fmt: skip
    assert counted.identity == delivery.identity
    event = Event(counted, "killer")
    guard = guard_of(tmp_path)
    assert is_suspect(guard, event) is suspected
    assert (guard.begin(event) is not None) is refused
