"""Every header of a letter is hostile input: one odd letter never hides another, in whatever looks at it."""

# ruff: noqa: E501  # tables
from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers.port import Browse
from infertool.brokers.stomp.conventions import CONVENTIONS
from infertool.cli.common import deadletters
from infertool.cli.replay_dlq.view import preview
from infertool.deadletters import letters, selection
from infertool.deadletters.archive import records
from infertool.deadletters.archive.journal import Journal
from infertool.deadletters.letters import key
from infertool.deadletters.replay.audit import Audit, Result
from infertool.deadletters.replay.decide import Decider, Fate, Plan
from infertool.deadletters.replay.progress import Tally
from infertool.deadletters.selection import select
from infertool.message import BodyKind, Message
from tests.deadletters.archive.conftest import DeadQueue
from tests.support.messages import text_message

NAMES = [
    "dlq_failed_at", "dlq_first_failed_at", "timestamp", "expires", "priority", "original_expires", "dlq_attempts",
    "replay_count", "replay_id", "dlq_stage", "dlq_error", "dlq_error_type", "dlq_consumer", "dlq_model", "event_id",
    "dlq_event_id", "dlq_request_id", "correlation-id", "original_message_id", "original_destination",
    "original-destination", "dlqDeliveryFailureCause", "originalExpiration", "content-length", "type", "persistent",
    "dlq_traceback", "dlq_headers_dropped", "redelivered", "destination",
]  # fmt: skip
VALUES = [
    "", " ", "0", "-1", "1e400", "nan", "inf", "9" * 400, "٣", "²", "0x10", "1_000", "true", "null", "\0", "\udcff\ud800",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "9999-12-31T23:59:59.9999999Z", "0001-01-01",
    "1969-12-31T23:59:59Z", "2026-02-30", "2026-W54-1", "2026-01-31T25:00:00", "20260131T030000Z", "2026-01-31T03:00:00+23:59:59",
    "253402300800000", "99999999999999", "999999999999999999", "/queue/", "/queue/a,/queue/b", "/queue/\udcff", "/topic/x",
    "ID:\udcff", "a\nb\rc", "\x1b]0;pwned\x07", "\u202e\u2028\x9b", "日本語" * 50, "x" * 20_000, "'; DROP", "(a+)+$", "{}", "[" * 2000,
]  # fmt: skip
BODIES = [b"", b"null", b"[", b"\xff", b'{"event_id":' + b"9" * 500 + b"}", b'{"event_id":1e999}', b"[" * 5000, b'{"a":"\\ud800"}',
          b'{"event_id":null,"request_id":[]}', b'{"n":1}']  # fmt: skip
ODD = [(name, value) for name in NAMES for value in VALUES]
_ids = itertools.count()


def message(headers: dict[str, str], body: bytes = b'{"n":1}') -> Message:
    return text_message(
        headers.get("message-id", f"ID:{next(_ids)}"), "/queue/dead", headers, body, BodyKind.TEXT, False, 1, "t"
    )


def check(tmp_path: Path, odd: Message) -> None:
    """Have all the tools look at a good letter between two odd ones; each must show, choose and keep the good one."""
    good = message(
        {
            "event_id": "good",
            "dlq_format": "infertool/1",
            "dlq_stage": "infer",
            "tenant": "a",
            "original_destination": "/queue/in",
            "dlq_error_type": "E",
        }
    )
    messages = [odd, good, odd]
    seen = [letters.read(each) for each in messages]
    assert any("/queue/in" in line for line in deadletters.letter_table(seen))
    for fields in (*((field,) for field in selection.FIELDS), ("stage", "error_type")):
        groups = selection.group(seen, fields)
        assert sum(group.count for group in groups) == 3
        deadletters.group_table(groups, fields)
        for group in groups:
            json.loads(deadletters.dump(deadletters.group_document(group, fields)))
    for each in seen:
        deadletters.details(each)
        json.loads(deadletters.dump(deadletters.document(each)))
    now = time.time()
    for options in (
        {"where": "n == 1 && headers['tenant'] == 'a'"}, {"where": "n > 0"}, {"stage": "infer"}, {"error": "E: "}, {"ids": ["good"]},
    ):  # fmt: skip
        chosen = [select(**options, now=now).matches(each) for each in seen]
        assert chosen[1], options
    for options in ({"since": "2h"}, {"until": "2026-01-01T00:00:00Z"}):
        for each in seen:
            select(**options, now=now).matches(each)
    plan = Plan(queue="/queue/dead", run="r", began=now, depth=3)
    shown = preview(plan, Browse(messages, complete=True, depth=3), CONVENTIONS)
    assert any("/queue/in: " in line for line in shown.lines())
    decider, tally = Decider(plan, CONVENTIONS), Tally()
    decisions = [decider.decide(each) for each in messages]
    tally.add(decisions)
    deadletters.dump(tally.summary())
    decider.refused(decisions[0], "\udcff")
    again = decider.decide(odd)
    tally.add([again])
    deadletters.dump(tally.summary())
    with Audit(tmp_path / "audit", plan, "me") as audit:
        audit.intend(decisions, now)
        audit.note(decisions, Result.DONE, now, "\udcff")
    assert all(map(json.loads, (tmp_path / "audit").read_bytes().splitlines()))
    with Journal(tmp_path / "a.jsonl") as journal:
        journal.sending([key(each) for each in messages])
        journal.sent([key(odd)])
    with Journal(tmp_path / "a.jsonl") as journal:
        assert journal.has(key(odd))
    (tmp_path / "b.jsonl").write_bytes(b"".join(map(records.encode, messages)))
    assert [key(each) for batch in records.read(tmp_path / "b.jsonl") for each in batch.messages] == [
        key(each) for each in messages
    ]


@pytest.mark.parametrize("name", NAMES)
def test_one_odd_header(tmp_path: Path, name: str) -> None:
    for number, value in enumerate(VALUES):
        folder = tmp_path / str(number)
        folder.mkdir()
        check(folder, message({"original_destination": "/queue/in", "dlq_stage": "infer", name: value}))
        check(folder, message({name: value}))


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_odd_bodies(tmp_path: Path, number: Any) -> None:
    check(tmp_path, message({"original_destination": "/queue/in"}, BODIES[number]))


TEXTS = st.one_of(
    st.sampled_from(VALUES),
    st.binary(max_size=30).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.datetimes().map(str),
)


@given(headers=st.dictionaries(st.sampled_from(NAMES) | TEXTS, TEXTS, max_size=8), body=st.sampled_from(BODIES))
def test_odd_headers_together(tmp_path_factory: pytest.TempPathFactory, headers: dict[str, str], body: bytes) -> None:
    check(tmp_path_factory.mktemp("odd"), message(headers, body))


def test_a_header_that_is_no_utf8_does_not_keep_the_others_from_a_filter() -> None:
    letter = letters.read(message({"tenant": "a", "odd": "\udcff", "\udcfe": "x"}))
    now = time.time()
    assert select(where="headers['tenant'] == 'a'", now=now).matches(letter)
    assert select(where="headers['odd'] == '\ufffd'", now=now).matches(letter)


def test_a_filter_that_one_letter_cannot_answer_chooses_among_the_others() -> None:
    plan = Plan(
        queue="/queue/dead", run="r", began=time.time(), depth=3, to="/queue/in", selection=select(where="vip", now=0)
    )
    decider = Decider(plan, CONVENTIONS)
    fates = [
        decider.decide(message({}, body))
        for body in (b'{"vip":true}', b'{"vip":"yes"}', b'{"vip":false}', b'{"vip":true}')
    ]
    assert [each.fate for each in fates] == [Fate.REPLAY, Fate.KEEP, Fate.OTHER, Fate.REPLAY]
    assert "--where" in fates[1].why


HOSTILE = {"dlq_failed_at": "0001-01-01T00\\c00\\c00+14\\c00", "timestamp": "999999999999999", "dlq_attempts": "-9e9"}


def test_every_command_goes_on_beside_a_hostile_letter(dead: DeadQueue) -> None:
    dead.fill(2)
    dead.put([(dead.letter(2, **HOSTILE), b'{"n": 2}')])
    dead.put([(dead.letter(3), b'{"n": 3}')])
    shown = dead.peek()
    assert all("cannot" in line for line in shown.stdout.splitlines()[1:])
    assert len(shown.stdout.splitlines()) == 5
    assert len(dead.peek("-o", "jsonl").stdout.splitlines()) == 4
    for fields in selection.FIELDS:
        dead.peek("--group-by", fields)
    assert "4 match" in dead.command("replay-dlq", dead.queue, "--dry-run").stderr
    dead.drained()
    assert "4 match" in dead.restored("--dry-run")["said"]
    assert dead.restored()["replayed"] == 4
    assert sorted(dead.numbers(dead.origin)) == [0, 1, 2, 3]
    dead.put([(dead.letter(4, **HOSTILE), b'{"n": 4}'), (dead.letter(5), b'{"n": 5}')])
    replayed = dead.command("replay-dlq", dead.queue, "--yes", "--until", "2026-12-01T00:00:00Z", "-o", "json")
    assert json.loads(replayed.stdout)["replayed"] >= 1
    assert 5 in dead.numbers(dead.origin)
