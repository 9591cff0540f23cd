"""`infertool peek-dlq` shows what is there, changes nothing, and says what it could not see."""

from __future__ import annotations

import base64
import json
from subprocess import CompletedProcess

import pytest

from tests.deadletters.archive.conftest import DeadQueue
from tests.support.running import CREDENTIALS, infertool


def lines(done: CompletedProcess[str]) -> list[str]:
    return done.stdout.splitlines()


def test_lists_letters_in_the_order_of_the_queue_and_leaves_them(dead: DeadQueue) -> None:
    dead.fill(5)
    for _ in range(2):
        done = dead.peek()
        head, *rows = lines(done)
        assert " ".join(head.split()) == "died id event id request id origin stage attempts replays error"
        assert len(rows) == 5
        assert all(f"{dead.origin}  infer  3         0        ValueError: cannot" in row for row in rows)
        assert all(row.startswith("2026-01-31 03:00:00Z  ID:") for row in rows)
        assert f"{dead.queue}: these are all, 5" in done.stderr
    found = dead.drain(dead.queue)
    assert [json.loads(body)["n"] for _, body in found] == [0, 1, 2, 3, 4]
    assert {headers.get("redelivered", "false") for headers, _ in found} == {"false"}


def test_groups(dead: DeadQueue) -> None:
    dead.fill(4)
    dead.fill(2, dlq_stage="decode", dlq_failed_at="2026-02-01T00\\c00\\c00Z")
    head, first, second = lines(dead.peek("--group-by", "stage,error_type"))
    assert head.split() == ["count", "stage", "error_type", "first", "last", "sample"]
    assert first.split()[:3] == ["4", "infer", "ValueError"]
    assert second.split()[:3] == ["2", "decode", "ValueError"]
    assert "2026-02-01 00:00:00Z  2026-02-01 00:00:00Z  ID:" in second
    document = json.loads(dead.peek("--group-by", "stage", "-o", "json").stdout)
    assert (document["depth"], document["seen"], document["complete"]) == (6, 6, True)
    assert [(each["stage"], each["count"]) for each in document["groups"]] == [("infer", 4), ("decode", 2)]
    assert document["groups"][0]["first_failed_at"] == "2026-01-31T03:00:00.000+00:00"


@pytest.mark.parametrize("wanted", ["id", "original_id", "event_id"])
def test_one_in_full(dead: DeadQueue, wanted: str) -> None:
    dead.fill(3)
    letter = json.loads(lines(dead.peek("-o", "jsonl"))[1])
    shown = dead.peek("--id", letter[wanted]).stdout
    assert f"original id  {letter['original_id']}" in shown
    assert "error  ValueError: cannot" in shown
    assert "event_id: e-1" in shown
    assert shown.endswith('body\n{\n  "n": 1\n}\n')
    assert json.loads(dead.peek("--id", letter[wanted], "-o", "json").stdout) == letter


def test_an_id_that_is_not_there(dead: DeadQueue) -> None:
    dead.fill(3)
    assert "shows no message with the id it's" in dead.peek("--id", "it's", code=4).stderr


def test_for_programs(dead: DeadQueue) -> None:
    dead.put([(dead.letter(1), b'{"n": 123456789012345678901234567890,\n "x": [1.50]}')])
    dead.put([({"event_id": "text"}, "grüße".encode())])
    dead.put([({"event_id": "binary"}, b"\xff\0")], as_bytes=True)
    first, second, third = map(json.loads, lines(dead.peek("-o", "jsonl")))
    assert first["payload"] == {"n": 123456789012345678901234567890, "x": [1.5]}
    assert (first["stage"], first["attempts"], first["writer"], first["type"]) == ("infer", 3, "infertool", "text")
    assert first["headers"]["dlq_error"] == "cannot"
    assert (second["body"], second["writer"], second["stage"]) == ("grüße", "stranger", "")
    assert (third["type"], base64.b64decode(third["body_base64"])) == ("bytes", b"\xff\0")
    assert json.loads(dead.peek("-o", "json").stdout)["letters"] == [first, second, third]


def test_nothing_from_a_message_reaches_the_terminal_raw(dead: DeadQueue) -> None:
    evil = "\x1b[2Jx\u202e"
    dead.put([(dead.letter(1, event_id=evil, dlq_error=evil, dlq_stage=evil), f'{{"x": "{evil}"}}'.encode())])
    dead.put([({"event_id": "e-2", "dlq_error": evil}, evil.encode())])
    for options in ([], ["--group-by", "stage,error"], ["--id", evil], ["--id", "e-2"]):
        shown = dead.peek(*options).stdout
        assert not set("\x1b\u202e") & set(shown), options
        assert "\\x1b[2Jx\\u202e" in shown


def test_binary_bodies_in_full(dead: DeadQueue) -> None:
    dead.put([({"event_id": "b"}, bytes(range(256)) * 4)], as_bytes=True)
    shown = dead.peek("--id", "b").stdout
    assert "body  bytes, 1024 bytes" in shown
    assert "f0 f1 f2" in shown
    assert "-o json has all of it" in shown


def test_an_empty_queue_and_one_that_never_was(dead: DeadQueue) -> None:
    assert "is empty, or does not exist" in dead.peek(code=4).stderr
    dead.fill(1)
    dead.drain(dead.queue)
    assert "is empty, or does not exist" in dead.peek(code=4).stderr


def test_a_limit(dead: DeadQueue) -> None:
    dead.fill(5)
    done = dead.peek("--limit", "2", "-o", "jsonl")
    assert len(lines(done)) == 2
    assert "saw the first 2 of 5; --limit ends it there" in done.stderr


def test_queue_names_in_short(dead: DeadQueue) -> None:
    dead.fill(1)
    assert len(lines(dead.command("peek-dlq", dead.queue.removeprefix("/queue/"), "-o", "jsonl"))) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["topic://x"], "no queue"),
        (["/temp-queue/x"], "no queue"),
        (["a.>"], "names many queues"),
        (["x", "--group-by", "stagge"], "did you mean 'stage'"),
        (["x", "--group-by", "stage", "--id", "y"], "cannot be used together"),
    ],
)
def test_bad_arguments(arguments: list[str], says: str) -> None:
    done = infertool("peek-dlq", *arguments)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_nothing_listens() -> None:
    done = infertool("peek-dlq", "--broker", "stomp://127.0.0.1:9", **CREDENTIALS)
    assert done.returncode == 3
    assert "nothing listens" in done.stderr


@pytest.mark.activemq
def test_a_default_activemq_shows_400_and_that_is_said(real_dead: DeadQueue) -> None:
    real_dead.fill(1000)
    done = real_dead.peek("-o", "json")
    document = json.loads(done.stdout)
    assert (document["depth"], document["seen"], document["complete"]) == (1000, 400, False)
    assert "saw the first 400 of 1000, the broker shows no more" in done.stderr


@pytest.mark.activemq
def test_one_that_stands_where_no_browse_reaches_is_found_by_its_id(real_dead: DeadQueue) -> None:
    real_dead.fill(1500)
    assert json.loads(real_dead.peek("--id", "e-1400", "-o", "json").stdout)["payload"] == {"n": 1400}
    assert real_dead.numbers(real_dead.queue) == list(range(1500))


@pytest.mark.activemq
def test_dead_letters_of_the_broker_itself(real_dead: DeadQueue) -> None:
    raw = real_dead.raw()
    raw.send(real_dead.origin, [({"event_id": "e-1", "expires": "1"}, b"{}")])
    raw.drain(real_dead.origin)
    raw.close()
    done = real_dead.command("peek-dlq", "DLQ." + real_dead.origin.removeprefix("/queue/"), "-o", "jsonl")
    (letter,) = map(json.loads, lines(done))
    assert (letter["writer"], letter["origin"], letter["error_type"]) == ("broker", real_dead.origin, "Expired")
