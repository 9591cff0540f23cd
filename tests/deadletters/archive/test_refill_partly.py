"""A restore of which a part got through: that part is counted and noted, the rest is named, and the run goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.message import BodyKind
from tests.deadletters.archive.conftest import DeadQueue
from tests.support.messages import text_message
from tests.support.odd_target import OddTarget, Treat
from tests.support.running import CREDENTIALS, NO_BYTECODE, environment


def archive_of(dead: DeadQueue, count: int, *, odd: int | None = None, **odd_headers: Any) -> None:
    """Write an archive of `count` letters; letter `odd` has the odd headers, too."""
    with ArchiveWriter(dead.file) as writer:
        for n in range(count):
            headers = {
                "event_id": f"e-{n}", "original_destination": dead.origin, "dlq_stage": "infer", "persistent": "true",
                **(odd_headers if n == odd else {}),
            }  # fmt: skip
            writer.append([text_message(f"ID:{n}", dead.queue, headers, b'{"n": %d}' % n, BodyKind.TEXT, False, 1, "")])


def target(treat: Treat) -> OddTarget:
    return OddTarget(lambda body: treat if body == b'{"n": 20}' else Treat.CONFIRM)


def taken(server: OddTarget) -> list[Any]:
    return sorted(json.loads(body)["n"] for body in server.took)


OTHERS = [n for n in range(41) if n != 20]


@pytest.mark.parametrize("treat", [Treat.REFUSE, Treat.CLOSE, Treat.IGNORE])
def test_one_odd_letter_holds_up_no_other(dead: DeadQueue, treat: Treat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERTOOL_BROKER__RECEIPT_TIMEOUT_S", "10")
    archive_of(dead, 41)
    audit = dead.folder / "audit.jsonl"
    with target(treat) as server:
        summary = dead.restored("--to-broker", server.url, "--audit", str(audit), code=1)
        arrived = taken(server)
    assert sorted(set(arrived)) == (list(range(41)) if treat is Treat.IGNORE else OTHERS)
    if treat is not Treat.CLOSE:  # what was under way when it closed is sent again
        assert len(arrived) == len(set(arrived))
    assert summary["replayed"] == 40
    assert (summary["refused"], summary["unconfirmed"]) == ((1, 0) if treat is Treat.REFUSE else (0, 1))
    assert [named["event_id"] for named in summary["named"]] == ["e-20"]
    assert "e-20" in summary["said"]
    outcomes = {
        line["event_id"]: line["outcome"]
        for line in map(json.loads, audit.read_text().splitlines())
        if "outcome" in line
    }
    assert outcomes.pop("e-20") == ("refused" if treat is Treat.REFUSE else "in doubt")
    assert outcomes == {f"e-{n}": "replayed" for n in OTHERS}
    # Kept for a run after the cause is mended, and only that one.
    with OddTarget(lambda _: Treat.CONFIRM) as server:
        again = dead.restored("--to-broker", server.url)
        assert taken(server) == [20]
    assert (again["replayed"], again["sent_before"]) == (1, 40)
    assert ("may arrive twice" in again["said"]) is (treat is not Treat.REFUSE)


# Some of these a restore may send under another name; whatever it does, the others must get through.
@pytest.mark.parametrize(
    "headers",
    [
        {"priority": "high"},
        {"expires": "never"},
        {"timestamp": "2026-11-26T17:00:00Z"},
        {"receipt": "r1"},
        {"transaction": "t1"},
        {"x" * 9000: "y" * 9000},
    ],
    ids=lambda headers: next(iter(headers))[:12],
)
def test_a_header_that_the_broker_will_not_take_holds_up_no_other(dead: DeadQueue, headers: dict[str, str]) -> None:
    archive_of(dead, 41, odd=20, **headers)
    summary = dead.restored()
    arrived = dead.numbers(dead.origin)
    assert set(OTHERS) <= set(arrived)
    assert summary["replayed"] + summary["kept"] == 41
    assert summary["replayed"] >= 40


def limited(dead: DeadQueue, limit: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Restore where no file may grow past `limit` bytes: a full disk."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY));"
        "from infertool.cli.main import run; run()"
    )
    return subprocess.run(
        [
            sys.executable, "-c", code, "replay-dlq", "--from", str(dead.file), "--yes", "-o", "json",
            "--broker", dead.broker.url, *options,
        ],
        capture_output=True, text=True, check=False, timeout=300,
        env=environment(**CREDENTIALS, **NO_BYTECODE), stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_journal_that_fills_up_after_a_send_says_what_was_sent(dead: DeadQueue) -> None:
    archive_of(dead, 150)
    journal = dead.file.with_name(f"{dead.file.name}.journal")
    # How long the first note is: of a run to elsewhere.
    copy = dead.file.with_name("copy.jsonl")
    shutil.copy(dead.file, copy)
    dead.command("replay-dlq", "--from", str(copy), "--yes", "--to", f"{dead.origin}.else")
    first = copy.with_name("copy.jsonl.journal").read_bytes().index(b"\n") + 1
    audit = dead.folder / "audit.jsonl"
    audit.write_text("")
    done = limited(dead, first + 10)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "sent 100 from" in done.stderr
    assert str(journal) in done.stderr
    assert "the last 100 letters, which were sent and confirmed" in done.stderr
    assert sorted(dead.numbers(dead.origin)) == list(range(100))
    again = dead.restored()
    assert "100 were in work when an earlier run ended; they may arrive twice" in again["said"]
    assert sorted(dead.numbers(dead.origin)) == list(range(150))


def test_a_journal_that_is_full_at_the_start_sends_nothing(dead: DeadQueue) -> None:
    archive_of(dead, 150)
    done = limited(dead, 10)
    assert done.returncode == 1, done.stderr
    assert "sent 0 from" in done.stderr
    assert dead.drain(dead.origin) == []


def test_an_audit_that_fills_up_midway_leaves_the_journal_right(dead: DeadQueue) -> None:
    archive_of(dead, 150)
    audit = dead.folder / "audit.jsonl"
    audit.write_text(" " * 30_000 + "\n")
    done = limited(dead, 60_000, "--audit", str(audit), "--batch", "10")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert str(audit) in done.stderr
    sent = dead.numbers(dead.origin)
    assert 0 < len(sent) < 150
    assert f"sent {len(sent)} from" in done.stderr
    again = dead.restored()
    assert again["sent_before"] == len(sent)
    assert sorted(sent + dead.numbers(dead.origin)) == list(range(150))
