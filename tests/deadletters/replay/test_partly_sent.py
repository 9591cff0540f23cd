"""A batch of which a part got through: that part is settled, the rest is named, and the run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deadletters.replay.conftest import DeadLetters
from tests.support.odd_target import OddTarget, Treat

# As long as a slow machine needs for a batch, and short enough to wait for.
RECEIPT_S: dict[str, Any] = {"INFERTOOL_BROKER__RECEIPT_TIMEOUT_S": "10"}


def odd(number: int, treat: Treat) -> OddTarget:
    """Return a target that treats this one so, and confirms all others."""
    wanted = b'{"n": %d}' % number
    return OddTarget(lambda body: treat if body == wanted else Treat.CONFIRM)


def numbers(bodies: list[bytes]) -> list[int]:
    return sorted(json.loads(body)["n"] for body in bodies)


def audited(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without(number: int, count: int) -> list[int]:
    return [n for n in range(count) if n != number]


@pytest.mark.parametrize("batch", ["100", "7", "1"])
def test_one_is_refused_and_the_others_go_once(dead: DeadLetters, batch: str) -> None:
    dead.fill(50)
    audit = dead.folder / "audit.jsonl"
    with odd(20, Treat.REFUSE) as target:
        first = dead.replay("--to-broker", target.url, "--batch", batch, "--audit", str(audit), code=1)
        again = dead.replay("--to-broker", target.url, "--batch", batch, code=1)
        assert numbers(target.took) == without(20, 50)
    assert (first["replayed"], first["refused"], first["kept"]) == (49, 1, 1)
    assert (again["replayed"], again["refused"]) == (0, 1)
    for summary in (first, again):
        assert [named["event_id"] for named in summary["named"]] == ["e-20"]
        assert "e-20" in summary["said"]
        assert "not this one" in summary["said"]
    assert dead.numbers(dead.queue) == [20]
    outcomes = [line["outcome"] for line in audited(audit) if line.get("event_id") == "e-20" and "outcome" in line]
    assert outcomes == ["refused"]
    assert sum(line.get("outcome") == "replayed" for line in audited(audit)) == 49


def test_one_is_never_confirmed_and_only_that_one_is_in_doubt(dead: DeadLetters) -> None:
    dead.fill(30)
    audit = dead.folder / "audit.jsonl"
    with odd(12, Treat.IGNORE) as target:
        summary = dead.replay("--to-broker", target.url, "--audit", str(audit), code=1, **RECEIPT_S)
        # Once each: the one in doubt is not sent again by this run.
        assert numbers(target.took) == list(range(30))
    assert (summary["replayed"], summary["unconfirmed"], summary["refused"]) == (29, 1, 0)
    assert [named["event_id"] for named in summary["named"]] == ["e-12"]
    assert "may have arrived" in summary["said"]
    assert dead.numbers(dead.queue) == [12]
    outcomes = {line["event_id"]: line["outcome"] for line in audited(audit) if "outcome" in line}
    assert outcomes.pop("e-12") == "in doubt"
    assert set(outcomes.values()) == {"replayed"}


def test_one_ends_every_connection_and_the_others_get_through(dead: DeadLetters) -> None:
    dead.fill(40)
    with odd(15, Treat.CLOSE) as target:
        summary = dead.replay("--to-broker", target.url, code=1)
        taken = numbers(target.took)
    assert sorted(set(taken)) == without(15, 40)
    assert (summary["replayed"], summary["unconfirmed"]) == (39, 1)
    assert [named["event_id"] for named in summary["named"]] == ["e-15"]
    assert dead.numbers(dead.queue) == [15]


def test_a_target_that_refuses_all_is_not_asked_for_ever(dead: DeadLetters) -> None:
    dead.fill(120)
    asked: list[bytes] = []
    with OddTarget(lambda body: asked.append(body) or Treat.REFUSE) as target:  # type: ignore[func-returns-value]
        summary = dead.replay("--to-broker", target.url, "--batch", "10", code=1)
    assert summary["replayed"] == 0
    assert len(asked) < 120
    assert dead.numbers(dead.queue) == list(range(120))


def test_a_target_that_confirms_nothing_ends_the_run(dead: DeadLetters) -> None:
    dead.fill(50)
    with OddTarget(lambda _: Treat.IGNORE) as target:
        done = dead.replay("--to-broker", target.url, "--batch", "2", code=3, INFERTOOL_BROKER__RECEIPT_TIMEOUT_S="1")
        assert len(target.took) < 50
    assert "confirms nothing" in done["said"]
    assert sorted(dead.numbers(dead.queue)) == list(range(50))


def test_a_copy_that_is_refused_leaves_the_others_copied(dead: DeadLetters) -> None:
    dead.fill(10)
    with odd(3, Treat.REFUSE) as target:
        summary = dead.replay("--to-broker", target.url, "--copy", code=1)
        assert numbers(target.took) == without(3, 10)
    assert (summary["replayed"], summary["refused"]) == (9, 1)
    assert sorted(dead.numbers(dead.queue)) == list(range(10))


@pytest.mark.parametrize("options", [[], ["--copy"]], ids=["moved", "copied"])
def test_a_letter_too_large_for_the_wire_holds_up_no_other(dead: DeadLetters, options: list[str]) -> None:
    """An edit made it so; the adapter refuses it before it is sent."""
    script = dead.folder / "grow.py"
    script.write_text(
        "def grow(payload):\n    return {**payload, 'pad': 'x' * 105_000_000} if payload['n'] == 2 else payload"
    )
    dead.fill(5)
    summary = dead.replay("--edit", f"{script}:grow", *options, code=1)
    assert (summary["replayed"], summary["refused"]) == (4, 1)
    assert [named["event_id"] for named in summary["named"]] == ["e-2"]
    assert dead.numbers(dead.origin) == [0, 1, 3, 4]


def test_an_audit_that_fills_up_midway_says_what_is_certain(dead: DeadLetters) -> None:
    """After the first batch the disk is full: what was done is told, and what is left stays in the queue."""
    dead.fill(300)
    audit = dead.folder / "audit.jsonl"
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY));"
    )
    done = dead.run_limited(code, "--audit", str(audit))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    there, here = dead.numbers(dead.origin), dead.numbers(dead.queue)
    assert sorted(there + here) == list(range(300))
    assert 0 < len(there) < 300
    assert f"replayed {len(there)};" in done.stderr
    assert str(audit) in done.stderr
    told = audited(audit)
    intents = {line["event_id"] for line in told if "intent" in line}
    assert {f"e-{n}" for n in there} <= intents
    replayed = {line["event_id"] for line in told if line.get("outcome") == "replayed"}
    assert replayed <= {f"e-{n}" for n in there}
