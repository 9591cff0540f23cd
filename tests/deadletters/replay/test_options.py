"""Options of replay-dlq: editing, limits to replaying, the audit, other brokers, agreement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deadletters.replay.conftest import DeadLetters
from tests.support.embedded import EmbeddedBroker
from tests.support.running import CREDENTIALS, infertool


def test_setting_fields(dead: DeadLetters) -> None:
    dead.put([(dead.letter(1), b'{"n": 1, "a": {"b": [1, {"c": 2}]}}'), (dead.letter(2), b"not json")])
    summary = dead.replay("--set", "a.b.1.c=[3]", "--set", "tier=gold", "--set", "new.deep=true")
    assert summary["replayed"] == 1
    assert summary["reasons"] == {"its body is not JSON, so it cannot be edited": 1}
    [(_, body)] = dead.drain(dead.origin)
    assert json.loads(body) == {"n": 1, "a": {"b": [1, {"c": [3]}]}, "tier": "gold", "new": {"deep": True}}
    assert [body for _, body in dead.drain(dead.queue)] == [b"not json"]


def test_a_script_that_is_not_there_is_named_as_such(dead: DeadLetters) -> None:
    dead.fill(1)
    options = ("--edit", f"{dead.folder}/nope.py:fix", "--yes")
    done = infertool("replay-dlq", dead.queue, *options, "--broker", dead.broker.url, **CREDENTIALS)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"infertool: --edit {dead.folder}/nope.py:fix cannot be imported: no file " in done.stderr


def test_editing_by_a_function(dead: DeadLetters) -> None:
    script = dead.folder / "fix.py"
    script.write_text(
        "def fix(payload):\n"
        "    if payload['n'] == 1:\n        raise KeyError('gone')\n"
        "    if payload['n'] == 2:\n        return {1, 2}\n"
        "    if payload['n'] == 3:\n        return None\n"
        "    return {**payload, 'fixed': True}\n"
    )
    dead.fill(5)
    summary = dead.replay("--edit", f"{script}:fix")
    assert (summary["replayed"], summary["kept"]) == (2, 3)
    assert any("KeyError" in reason for reason in summary["reasons"])
    assert [json.loads(body) for _, body in dead.drain(dead.origin)] == [
        {"n": 0, "fixed": True},
        {"n": 4, "fixed": True},
    ]
    assert dead.numbers(dead.queue) == [1, 2, 3]


def test_a_letter_replayed_too_often_stays_or_is_parked(dead: DeadLetters) -> None:
    dead.put((dead.letter(n, replay_count=str(n)), b'{"n": %d}' % n) for n in range(5))
    assert dead.replay("--limit", "1")["replayed"] == 1
    summary = dead.replay()
    assert (summary["replayed"], summary["kept"]) == (2, 2)
    parked = dead.replay("--parking", f"{dead.origin}.parked", code=0)
    assert (parked["replayed"], parked["parked"]) == (0, 2)
    letters = dead.drain(f"{dead.origin}.parked")
    assert [json.loads(body)["n"] for _, body in letters] == [3, 4]
    assert all(headers["dlq_error"] == "cannot" for headers, _ in letters)
    assert dead.numbers(dead.origin) == [0, 1, 2]


@pytest.mark.parametrize("count", [3, 450])
def test_where_every_letter_stays_it_says_so_however_much_is_shown_beforehand(dead: DeadLetters, count: int) -> None:
    """A browse shows all of 3, and the first 400 of 450."""
    dead.fill(count, replay_count="3")
    assert "can be replayed" in dead.replay(code=4)["said"]
    assert dead.depth().size == count


def test_the_audit_tells_every_decision(dead: DeadLetters) -> None:
    dead.put((dead.letter(n, replay_count="9" if n == 2 else "0"), b'{"n": %d}' % n) for n in range(4))
    audit = dead.folder / "audit.jsonl"
    audit.write_text('{}\n{"at":"2026-0')  # a power cut left half a line
    dead.replay("--where", "n > 0", "--audit", str(audit))
    lines = [json.loads(line) for line in audit.read_text().splitlines()[2:]]
    intents = [(line["event_id"], line["intent"]) for line in lines if "intent" in line]
    assert intents == [("e-1", "replay"), ("e-2", "keep"), ("e-3", "replay")]
    outcomes = [(line["event_id"], line["outcome"]) for line in lines if "outcome" in line]
    assert outcomes == [("e-1", "replayed"), ("e-2", "kept"), ("e-3", "replayed")]
    assert {(line["from"], line["original_id"][:9]) for line in lines} == {(dead.queue, "ID:first-")}
    sent = {headers["event_id"]: headers["replay_id"] for headers, _ in dead.drain(dead.origin)}
    assert {line["event_id"]: line["replay_id"] for line in lines if line.get("outcome") == "replayed"} == sent


def test_an_audit_that_no_disk_keeps_is_named(dead: DeadLetters) -> None:
    dead.fill(2)
    said = dead.replay("--audit", "/dev/null", code=1)["said"]
    assert "the audit file /dev/null cannot be written: it is no file on a disk; nothing was moved" in said
    assert dead.numbers(dead.queue) == [0, 1]


def test_without_room_for_the_audit_nothing_moves(dead: DeadLetters) -> None:
    dead.fill(3)
    done = dead.replay("--audit", "/dev/full", "--where", "n > 0", code=1)
    assert "/dev/full" in done["said"]
    assert dead.drain(dead.origin) == []
    assert sorted(dead.numbers(dead.queue)) == [0, 1, 2]


def test_to_another_broker(dead: DeadLetters) -> None:
    other = EmbeddedBroker().start()
    try:
        dead.fill(220)
        summary = dead.replay("--to-broker", other.url, "--where", "n % 2 == 0")
        there = DeadLetters(other, dead.folder, dead.origin)
        assert summary["replayed"] == 110
        assert "at least once" in summary["said"]
        assert there.numbers(dead.origin) == list(range(0, 220, 2))
        assert dead.numbers(dead.queue) == list(range(1, 220, 2))
        assert dead.drain(dead.origin) == []
    finally:
        other.stop()


def test_a_dry_run_only_looks(dead: DeadLetters) -> None:
    dead.fill(20)
    said = dead.replay("--dry-run", "--where", "n < 5")["said"]
    assert "5 match" in said
    assert f"to {dead.origin}: 5" in said
    assert "ValueError" in said
    assert dead.numbers(dead.queue) == list(range(20))


def test_nobody_to_ask_is_a_refusal(dead: DeadLetters) -> None:
    dead.fill(1)
    done = infertool("replay-dlq", dead.queue, "--broker", dead.broker.url, **CREDENTIALS)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert dead.numbers(dead.queue) == [0]


def test_a_selector_says_how_far_it_sees(dead: DeadLetters) -> None:
    dead.put((dead.letter(n, tenant="a" if n % 2 else "b"), b'{"n": %d}' % n) for n in range(10))
    summary = dead.replay("--selector", "tenant = 'a'")
    assert summary["replayed"] == 5
    assert "near the head of the queue" in summary["said"]
    assert sorted(dead.numbers(dead.origin)) == [1, 3, 5, 7, 9]
    assert sorted(dead.numbers(dead.queue)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "n >"], "^"),
        (["--error", "("], "regular expression"),
        (["--since", "yesterday"], "2h"),
        (["--rate", "0"], "50/s"),
        (["--set", "=1"], "customer.tier"),
        (["--to", "/topic/x"], "no queue"),
        (["--edit", "nowhere.py:fix"], "nowhere.py"),
    ],
)
def test_wrong_options(dead: DeadLetters, options: list[str], said: str) -> None:
    dead.fill(1)
    done = infertool(*dead.arguments(*options), **CREDENTIALS)
    assert done.returncode in {1, 2}
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert dead.numbers(dead.queue) == [0]


def test_an_unwritable_audit_is_named(dead: DeadLetters, tmp_path: Path) -> None:
    dead.fill(1)
    assert "no/such" in dead.replay("--audit", str(tmp_path / "no/such/file"), code=1)["said"]
    assert dead.numbers(dead.queue) == [0]
