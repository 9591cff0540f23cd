"""`infertool drain-dlq` archives everything, and removes only what is archived."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers import headers
from infertool.deadletters.archive.writer import ArchiveWriter
from tests.deadletters.archive.conftest import DeadQueue
from tests.support.brokers import settings as broker_settings
from tests.support.running import CREDENTIALS, NO_BYTECODE, environment, infertool


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_archives_and_removes_everything_in_order(dead: DeadQueue, suffix: str) -> None:
    dead.suffix = suffix
    dead.fill(450)
    summary = dead.drained()
    assert (summary["archived"], summary["removed"], summary["remaining"], summary["interrupted"]) == (
        450,
        450,
        0,
        False,
    )
    assert dead.archived_numbers() == list(range(450))
    assert dead.drain(dead.queue) == []


def test_the_archive_holds_what_the_queue_held(dead: DeadQueue) -> None:
    odd = {"event_id": "e", "a\\cb": "1\\n2\\\\", "priority": "7", "correlation-id": "c-1", "type": "t", "utf": "é"}
    dead.put([(odd, "é\u2028".encode())])
    dead.put([({"event_id": "bytes"}, b"\0\xff\n")], as_bytes=True)
    dead.drained()
    by_id = {message.headers["event_id"]: message for message in dead.archived()}
    text, raw = by_id["e"], by_id["bytes"]
    assert (text.kind, text.body, text.source) == ("text", "é\u2028".encode(), dead.queue)
    assert (raw.kind, raw.body) == ("bytes", b"\0\xff\n")
    wanted = {"a:b": "1\n2\\", "priority": "7", "correlation-id": "c-1", "type": "t", "utf": "é", "persistent": "true"}
    assert wanted.items() <= headers.text(text).items()


def test_an_empty_queue_and_one_that_never_was(dead: DeadQueue) -> None:
    assert "is empty, or does not exist" in dead.drained(code=4)["said"]
    assert not dead.file.exists()


def test_without_a_terminal_it_does_nothing_unless_told(dead: DeadQueue) -> None:
    dead.fill(2)
    done = dead.command("drain-dlq", dead.queue, "--to", str(dead.file), code=2)
    assert "--yes" in done.stderr
    wrong = dead.command("drain-dlq", dead.queue, "--to", str(dead.file), "--yes=other", code=2)
    assert "--yes=other names another queue" in wrong.stderr
    assert not dead.file.exists()
    assert dead.numbers(dead.queue) == [0, 1]


def on_a_terminal(dead: DeadQueue, answer: str, *arguments: str) -> Any:
    """Run drain-dlq with a terminal for its questions; return its exit code and what it asked."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "infertool", "drain-dlq", dead.queue, "--broker", dead.broker.url, *arguments],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**CREDENTIALS),
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    _, said = process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, said


def test_it_asks_and_takes_no_for_an_answer(dead: DeadQueue) -> None:
    dead.fill(3)
    code, said = on_a_terminal(dead, "n", "--to", str(dead.file))
    assert code == 1
    assert f"archive 3 messages of {dead.queue}" in said
    code, _ = on_a_terminal(dead, "y", "--to", str(dead.file))
    assert code == 0
    assert dead.archived_numbers() == [0, 1, 2]


def test_discarding_needs_the_name(dead: DeadQueue) -> None:
    dead.fill(3)
    short = dead.queue.removeprefix("/queue/")
    code, said = on_a_terminal(dead, "y", "--discard")
    assert (code, "for ever" in said) == (1, True)
    for wrong in ([], ["--yes"], ["--yes=other"]):
        done = dead.command("drain-dlq", dead.queue, "--discard", *wrong, code=2)
        assert f"--yes={short}" in done.stderr
    done = dead.command("drain-dlq", dead.queue, "--discard", f"--yes={short}", "-o", "json")
    assert json.loads(done.stdout)["removed"] == 3
    assert dead.drain(dead.queue) == []


def test_typing_the_name_discards(dead: DeadQueue) -> None:
    dead.fill(3)
    code, _ = on_a_terminal(dead, dead.queue, "--discard")
    assert code == 0
    assert dead.drain(dead.queue) == []


def test_the_default_file_is_named_after_the_queue(dead: DeadQueue) -> None:
    dead.fill(2)
    done = subprocess.run(
        [sys.executable, "-m", "infertool", "drain-dlq", dead.queue, "--broker", dead.broker.url, "--yes"],
        cwd=dead.folder, capture_output=True, text=True, check=True,
        env=environment(**CREDENTIALS, PYTHONPATH=os.pathsep.join(["", *sys.path, str(Path.cwd())])),
    )  # fmt: skip
    file = dead.folder / f"{dead.queue.removeprefix('/queue/')}.jsonl"
    assert len(file.read_text().splitlines()) == 2
    assert f"archived 2 in {file.name}, removed 2 from {dead.queue}; 0 remain" in done.stdout


def test_a_second_drain_appends_and_a_half_written_record_is_cut_off(dead: DeadQueue) -> None:
    dead.fill(3)
    dead.drained()
    with dead.file.open("ab") as file:
        file.write(b'{"infertool_message":1,"id":"ID:half')
    dead.put([(dead.letter(3), b'{"n": 3}')])
    said = dead.drained()["said"]
    assert "removed 36 bytes of a half-written last record" in said
    assert "appending to 3 messages" in said
    assert dead.archived_numbers() == [0, 1, 2, 3]


def test_a_message_that_is_archived_and_was_not_removed_is_not_archived_again(dead: DeadQueue) -> None:
    """As after a death between the sync and the commit: the archive has it, and so has the queue."""
    dead.fill(5)
    broker = brokers.open(broker_settings(dead.broker.url))
    broker.connect()
    shown = broker.browse(dead.queue, limit=2, timeout_s=60).messages
    broker.close(10)
    with ArchiveWriter(dead.file) as archive:
        archive.append(shown)
    summary = dead.drained()
    assert (summary["archived"], summary["known"], summary["removed"]) == (3, 2, 5)
    assert len({message.id for message in dead.archived()}) == len(dead.archived()) == 5


def test_a_file_that_is_no_archive_is_left_alone(dead: DeadQueue) -> None:
    dead.fill(2)
    dead.file.write_text("my notes\n")
    assert "not JSON" in dead.drained(code=1)["said"]
    assert dead.file.read_text() == "my notes\n"
    assert dead.numbers(dead.queue) == [0, 1]


def test_a_full_disk_leaves_the_rest_in_the_queue(dead: DeadQueue) -> None:
    dead.fill(250)
    room = 100_000
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY));"
        "from infertool.cli.main import run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *dead.drain_arguments()],
        capture_output=True, text=True, check=False, env=environment(**CREDENTIALS, **NO_BYTECODE),
    )  # fmt: skip
    assert done.returncode == 1
    assert "make room and run it again" in done.stderr
    kept = dead.archived_numbers()
    assert 0 < len(kept) < 250
    assert f"archived {len(kept)}, removed {len(kept)}" in done.stderr
    assert dead.drained()["remaining"] == 0
    assert dead.archived_numbers() == list(range(250))


def test_what_dies_meanwhile_stays(dead: DeadQueue) -> None:
    """The drain ends at what was there when it began, however fast new ones come."""
    dead.fill(300)
    running = dead.start_drain()
    raw = dead.raw()
    sent = 300
    while running.process.poll() is None:
        raw.send(dead.queue, [(dead.letter(n), b'{"n": %d}' % n) for n in range(sent, sent + 20)])
        sent += 20
    raw.close()
    summary = running.finish()
    archived = dead.archived_numbers()
    assert archived == list(range(len(archived)))
    assert 300 <= summary["removed"] == len(archived) < sent
    assert archived + dead.numbers(dead.queue) == list(range(sent))


def test_what_cannot_be_archived_stays(dead: DeadQueue) -> None:
    """A JMS map arrives over STOMP like an empty text; so does an empty text of a stranger, and nobody can tell."""
    dead.fill(2)
    dead.put([({"event_id": "map"}, b"")])
    summary = dead.drained()
    assert (summary["archived"], summary["left"], summary["remaining"]) == (2, 1, 1)
    assert "STOMP does not show" in summary["said"]
    assert [headers["event_id"] for headers, _ in dead.drain(dead.queue)] == ["map"]


def test_what_a_killed_replay_left_in_staging_is_put_back_first(dead: DeadQueue) -> None:
    dead.put(((dead.letter(n), b'{"n": %d}' % n) for n in range(3)), queue=dead.staging)
    assert f"3 more are in {dead.staging}" in dead.peek(code=4).stderr
    said = dead.drained()["said"]
    assert f"put back 3 letters that an interrupted run had left in {dead.staging}" in said
    assert dead.archived_numbers() == [0, 1, 2]


@pytest.mark.long
@pytest.mark.activemq
def test_a_body_of_fifty_megabytes(real_dead: DeadQueue) -> None:
    body = random.Random(1).randbytes(1_000_000) * 50
    real_dead.put([(real_dead.letter(0), body)], as_bytes=True)
    assert real_dead.drained()["removed"] == 1
    assert [message.body == body for message in real_dead.archived()] == [True]
    real_dead.restored()
    real_dead.queue, real_dead.suffix = real_dead.origin, "jsonl.zst"
    real_dead.drained()
    assert [message.body == body for message in real_dead.archived()] == [True]


def test_ctrl_c_ends_after_a_batch_and_says_what_was_done(dead: DeadQueue) -> None:
    dead.fill(3000)
    running = dead.start_drain()
    while not (dead.file.exists() and dead.file.stat().st_size):
        assert running.process.poll() is None
    running.process.send_signal(signal.SIGINT)
    output, _ = running.process.communicate(timeout=60)
    summary = json.loads(output)
    assert (running.process.returncode, summary["interrupted"]) == (130, True)
    archived = dead.archived_numbers()
    assert len(archived) == summary["removed"] == 3000 - summary["remaining"] < 3000
    assert archived + dead.numbers(dead.queue) == list(range(3000))


def test_two_at_once(dead: DeadQueue) -> None:
    dead.fill(3)
    holder = dead.raw()
    holder._write(
        "SUBSCRIBE",
        {"id": "1", "destination": f"{dead.queue}.lock", "ack": "client-individual", "activemq.exclusive": "true"},
        b"",
    )
    holder._receipt("SEND", {"destination": f"{dead.queue}.other"}, b"")
    assert "another run works on" in dead.drained(code=1)["said"]
    holder.close()
    assert dead.drained()["removed"] == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/topic/x"], "no queue"),
        (["a.*"], "names many queues"),
        (["x", "--discard", "--to", "f"], "cannot be used together"),
    ],
)
def test_bad_arguments(arguments: list[str], says: str) -> None:
    done = infertool("drain-dlq", *arguments)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
