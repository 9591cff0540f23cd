from __future__ import annotations

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
events = [Event(message(message_id=name, redelivered=True), name) for name in sys.argv[2:]]
failures = [guard.begin(event) for event in events]
guard.end(events[1:])
print(*("dead" if failure else "work" for failure in failures), flush=True)
os.kill(os.getpid(), 9)
"""


def die_in_work(folder: Path, *names: str) -> str:
    """Run a process that dies with the first of `names` in work and the others settled; return what it decided."""
    run = subprocess.run(
        [sys.executable, "-c", DIE_IN_WORK, str(folder), *names], capture_output=True, text=True, check=False
    )
    assert run.returncode == -9, run.stderr
    return run.stdout.strip()


def redelivered(name: str) -> Event:
    return Event(message(message_id=name, redelivered=True), name)


def guard_of(folder: Path, observed: list[Signal] | None = None) -> CrashGuard:
    return CrashGuard(folder, broker="b", queue="q", observe=(observed if observed is not None else []).append)


def test_an_event_in_work_at_two_deaths_is_refused(tmp_path: Path) -> None:
    assert die_in_work(tmp_path, "killer", "innocent") == "work work"
    guard = guard_of(tmp_path)
    failure = guard.begin(redelivered("killer"))
    assert failure is not None
    assert (failure.stage, failure.retryable) == ("crash", False)
    assert guard.begin(redelivered("innocent")) is None
    guard.close()


def test_the_verdict_survives_a_death_before_it_is_carried_out(tmp_path: Path) -> None:
    die_in_work(tmp_path, "killer")
    die_in_work(tmp_path, "other", "killer-unrelated")
    assert guard_of(tmp_path).begin(redelivered("killer")) is not None


def test_a_settled_event_leaves_no_trace(tmp_path: Path) -> None:
    die_in_work(tmp_path, "killer")
    guard = guard_of(tmp_path)
    event = redelivered("killer")
    guard.begin(event)
    guard.end([event])
    guard.close()
    assert not list(tmp_path.rglob("*.notes"))
    assert guard_of(tmp_path).begin(redelivered("killer")) is None


def test_of_two_events_with_one_id_the_one_in_work_stays_noted(tmp_path: Path) -> None:
    assert die_in_work(tmp_path, "same", "same") == "work work"
    assert guard_of(tmp_path).begin(redelivered("same")) is not None


@pytest.mark.parametrize("other", [{"body": b"[]"}, {"source": "/queue/other"}, {"timestamp": "1"}])
def test_another_event_with_the_same_id_is_innocent(tmp_path: Path, other: dict[str, Any]) -> None:
    """The next broker of a failover counts from one again; a business id in `message-id` comes twice."""
    die_in_work(tmp_path, "same")
    guard = guard_of(tmp_path)
    innocent = Event(message(message_id="same", redelivered=True, **other), "innocent")
    assert guard.begin(innocent) is None
    guard.end([innocent])
    assert guard.begin(redelivered("same")) is not None


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    mine, other = guard_of(tmp_path), guard_of(tmp_path)
    assert mine.begin(redelivered("a")) is None
    assert other.begin(redelivered("a")) is None
    mine.close()
    other.close()


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
    assert fresh.begin(redelivered("whole")) is not None
    assert fresh.begin(redelivered("half")) is None


def test_ids_with_line_ends_are_kept_apart(tmp_path: Path) -> None:
    die_in_work(tmp_path, "a\nb\u2028c")
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


@pytest.mark.parametrize(("count", "refused"), [(None, True), (1, False), (2, True), (7, True)])
def test_a_suspect_was_delivered_at_both_deaths_where_the_broker_counts(
    tmp_path: Path, count: int | None, refused: bool
) -> None:
    die_in_work(tmp_path, "killer")
    delivery = redelivered("killer").message
    counted = TypedMessage(
        delivery.id, delivery.source, {}, delivery.body, delivery.kind, redelivered=True, epoch=1, token="t",
        known=Properties(delivery_count=count),
    )  # fmt: skip
    assert counted.identity == delivery.identity
    assert (guard_of(tmp_path).begin(Event(counted, "killer")) is not None) is refused
