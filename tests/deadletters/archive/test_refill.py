"""`infertool replay-dlq --from FILE` sends an archive back, each message once."""

from __future__ import annotations

import json
import signal
import time

import pytest

from tests.deadletters.archive.conftest import DeadQueue
from tests.support import jms
from tests.support.forked import Process
from tests.support.running import CREDENTIALS, Running


def test_what_was_drained_goes_back_to_where_it_came_from_as_it_was(dead: DeadQueue) -> None:
    user = {"a\\cb": "1\\n2", "priority": "7", "correlation-id": "c", "type": "t", "utf": "é"}
    dead.put([(dead.letter(0, **user), "é".encode())])
    dead.put([({**dead.letter(1), **user}, b"\0\xff")], as_bytes=True)
    dead.drained()
    summary = dead.restored()
    assert (summary["replayed"], summary["targets"]) == (2, {dead.origin: 2})
    (text_headers, text), (bytes_headers, raw) = dead.drain(dead.origin)
    assert (text, raw) == ("é".encode(), b"\0\xff")
    assert ("content-length" in text_headers, "content-length" in bytes_headers) == (False, True)
    for headers in (text_headers, bytes_headers):
        # The raw client does not unescape names.
        wanted = {"a\\cb": "1\n2", "priority": "7", "correlation-id": "c", "type": "t", "utf": "é", "replay_count": "1"}
        assert wanted.items() <= headers.items()
        assert not any(name.startswith("dlq_") for name in headers)
    assert text_headers["original_message_id"] == "ID:first-0"


@pytest.mark.activemq
def test_java_reads_the_texts_of_what_went_back(real_dead: DeadQueue) -> None:
    real_dead.fill(20)
    real_dead.drained()
    real_dead.restored()
    texts = jms.consume(real_dead.broker, real_dead.origin, 20, real_dead.folder)
    assert texts == [f'{{"n": {n}}}' for n in range(20)]


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
def test_a_second_run_does_not_send_twice(dead: DeadQueue, suffix: str) -> None:
    dead.suffix = suffix
    dead.fill(250)
    dead.drained()
    assert dead.restored("--limit", "120")["replayed"] == 120
    again = dead.restored()
    assert (again["replayed"], again["sent_before"]) == (130, 120)
    assert "nothing in" in dead.restored(code=4)["said"]
    assert dead.numbers(dead.origin) == list(range(250))


def test_nothing_of_an_archive_is_left_in_a_staging_queue(dead: DeadQueue) -> None:
    """What does not match, and what must stay, is in the file as before: nowhere else."""
    dead.fill(30)
    dead.put([(dead.letter(n, replay_count="9"), b'{"n": %d}' % n) for n in range(30, 35)])
    dead.drained()
    summary = dead.restored("--where", "n >= 25")
    assert summary["left_in_staging"] == summary["put_back"] == summary["arrived_meanwhile"] == 0
    assert (summary["replayed"] + summary["kept"], summary["not_matching"]) == (10, 25)


def test_the_same_filters(dead: DeadQueue) -> None:
    dead.fill(10)
    dead.put([(dead.letter(n, dlq_stage="decode"), b'{"n": %d}' % n) for n in range(10, 14)])
    dead.drained()
    assert dead.restored("--where", "n % 5 == 0", "--stage", "infer")["replayed"] == 2
    assert dead.restored("--stage", "decode", "--set", "n=99", "--to", f"{dead.origin}.x")["replayed"] == 4
    assert dead.restored("--id", "e-7")["replayed"] == 1
    assert dead.numbers(dead.origin) == [0, 5, 7]
    assert dead.numbers(f"{dead.origin}.x") == [99] * 4
    assert dead.restored()["sent_before"] == 7


def test_a_dry_run_sends_nothing(dead: DeadQueue) -> None:
    dead.fill(3)
    dead.drained()
    said = dead.restored("--dry-run")["said"]
    assert f"{dead.file}: 3 messages" in said
    assert f"to {dead.origin}: 3" in said
    assert "oldest 2026-01-31 03:00:00Z" in said
    assert dead.restored()["replayed"] == 3


def test_no_origin_stays_in_the_archive(dead: DeadQueue) -> None:
    dead.put([({"event_id": "stranger"}, b'{"n": 1}')])
    dead.fill(1)
    dead.drained()
    summary = dead.restored()
    assert (summary["replayed"], summary["kept"]) == (1, 1)
    assert "nothing says where it came from" in summary["said"]
    assert dead.restored("--to", dead.origin)["replayed"] == 1


def test_replayed_too_often_goes_to_parking(dead: DeadQueue) -> None:
    dead.fill(1, replay_count="3")
    dead.drained()
    assert "was replayed 3 times" in dead.restored(code=4)["said"]
    assert dead.restored("--parking", f"{dead.origin}.parking")["parked"] == 1
    assert dead.numbers(f"{dead.origin}.parking") == [0]
    assert dead.drain(dead.origin) == []


def test_what_an_interrupted_drain_wrote_twice_is_sent_once(dead: DeadQueue) -> None:
    dead.fill(3)
    dead.drained()
    records = dead.file.read_bytes().splitlines(keepends=True)
    dead.file.write_bytes(b"".join([*records, records[1]]))
    assert dead.restored()["replayed"] == 3
    assert dead.numbers(dead.origin) == [0, 1, 2]


def test_of_an_archive_of_several_queues_only_the_one_that_is_named(dead: DeadQueue) -> None:
    for number, queue in enumerate((f"{dead.queue}.a", f"{dead.queue}.b")):
        dead.put([(dead.letter(number), b'{"n": %d}' % number)], queue=queue)
        dead.command("drain-dlq", queue, "--to", str(dead.file), "--yes")
    said = dead.restored("nothing.is.named.so", code=4)["said"]
    assert f"{dead.file}: 0 messages of /queue/nothing.is.named.so" in said
    assert dead.restored(f"{dead.queue}.b".removeprefix("/queue/"))["replayed"] == 1
    assert dead.numbers(dead.origin) == [1]
    assert dead.restored()["replayed"] == 1
    assert dead.numbers(dead.origin) == [0]


def test_the_queue_for_parking_is_spelt_as_by_the_broker_that_gets_the_letters(dead: DeadQueue) -> None:
    dead.put([(dead.letter(0, replay_count="3"), b'{"n": 0}')])
    dead.drained()
    options = ("--to-broker", "memory://elsewhere", "--parking", "parked", "--dry-run")
    assert "to parked: 1" in dead.restored(*options)["said"]


def test_the_second_copy_of_a_letter_is_sent_by_no_later_run(dead: DeadQueue) -> None:
    """A broker without atomic moves may leave two letters of one event, and a drain archives both."""
    dead.put([(dead.letter(0, dlq_id="one"), b'{"n": 0}')] * 2)
    dead.drained()
    assert dead.restored()["replayed"] == 1
    assert "nothing" in dead.restored(code=4)["said"]
    assert dead.numbers(dead.origin) == [0]


def test_an_archive_cut_short_is_sent_as_far_as_it_goes(dead: DeadQueue) -> None:
    dead.fill(3)
    dead.drained()
    dead.file.write_bytes(dead.file.read_bytes()[:-20])
    assert dead.restored()["replayed"] == 2


def test_of_a_spoiled_archive_nothing_is_sent(dead: DeadQueue) -> None:
    dead.fill(200)
    dead.drained()
    records = dead.file.read_bytes().splitlines(keepends=True)
    dead.file.write_bytes(b"".join([*records[:150], b"{spoiled\n", *records[151:]]))
    assert "record 151: is not JSON" in dead.restored(code=1)["said"]
    assert dead.drain(dead.origin) == []


def test_an_edited_record_is_sent_as_it_is_now(dead: DeadQueue) -> None:
    dead.fill(1)
    dead.drained()
    dead.file.write_bytes(dead.file.read_bytes().replace(rb"{\"n\": 0}", rb"{\"n\": 5}"))
    dead.restored()
    assert dead.numbers(dead.origin) == [5]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--selector", "a = 1"], "cannot be used with --from"),
        (["--copy"], "cannot be used with --from"),
        (["--abort-on-refail", "1"], "cannot be used with --from"),
        (["--where", "n =="], "^"),
        (["--rate", "quick", "--dry-run"], "is no rate"),
    ],
)
def test_bad_options(dead: DeadQueue, options: list[str], says: str) -> None:
    dead.fill(1)
    dead.drained()
    assert says in dead.restored(*options, code=2)["said"]


def test_no_such_file(dead: DeadQueue) -> None:
    assert "there is no file" in dead.restored(code=2)["said"]


def test_audited_and_paced(dead: DeadQueue) -> None:
    dead.fill(3)
    dead.drained()
    audit = dead.folder / "audit.jsonl"
    dead.restored("--audit", str(audit), "--rate", "50/s")
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    for key, done in (("intent", "replay"), ("outcome", "replayed")):
        told = [(line["event_id"], line[key], line["to"]) for line in lines if key in line]
        assert told == [(f"e-{n}", done, dead.origin) for n in range(3)]
    assert lines[0]["from"] == f"file:{dead.file}"


def start(dead: DeadQueue, *options: str) -> Running:
    return Running(
        dead.folder / "runs", "replay-dlq", "--from", str(dead.file), "--yes", "-o", "json",
        "--broker", dead.broker.url, *options, **CREDENTIALS,
    )  # fmt: skip


def wait_for_journal(dead: DeadQueue, process: Process, entries: int) -> bool:
    journal = dead.file.with_name(f"{dead.file.name}.journal")
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b'"sent"') >= entries:
            return True
        time.sleep(0.002)
    return False


def test_a_stop_speaks_of_what_there_is(dead: DeadQueue) -> None:
    dead.fill(3)
    dead.drained()
    running = start(dead, "--rate", "0.01/s")
    assert wait_for_journal(dead, running.process, 1)
    running.terminate()
    assert running.process.wait() == 130
    said = running.log.read_text()
    assert "stopping after this batch; Ctrl-C again leaves at once" in said
    assert "staged" not in said
    assert dead.restored()["replayed"] == 2


@pytest.mark.long
def test_killed_in_the_middle_each_is_sent_and_only_what_was_in_work_perhaps_twice(dead: DeadQueue) -> None:
    dead.fill(2000)
    dead.drained()
    doubts = 0
    for entries in (1, 3, 6, 9):
        running = start(dead, "--batch", "50")
        assert wait_for_journal(dead, running.process, entries)
        running.kill()
        doubts += 50
    summary = dead.restored()
    found = dead.drain(dead.origin)
    numbers = [json.loads(body)["n"] for _, body in found]
    assert sorted(set(numbers)) == list(range(2000))
    assert len(numbers) <= 2000 + doubts
    assert summary["sent_before"] >= 9 * 50
    # A copy is recognised by what stays the same.
    assert len({headers["original_message_id"] for headers, _ in found}) == 2000


@pytest.mark.long
@pytest.mark.activemq
def test_a_broker_that_dies_in_the_middle_and_comes_back(real_dead: DeadQueue) -> None:
    real_dead.fill(3000)
    real_dead.drained()
    running = start(real_dead, "--batch", "20")
    assert wait_for_journal(real_dead, running.process, 5)
    # It must not come to its end before the kill.
    running.process.send_signal(signal.SIGSTOP)
    real_dead.broker.kill()
    running.process.send_signal(signal.SIGCONT)
    real_dead.broker.start()
    summary = running.finish()
    assert "connecting again" in running.log.read_text()
    assert summary["replayed"] == 3000
    numbers = real_dead.numbers(real_dead.origin)
    assert sorted(set(numbers)) == list(range(3000))
    # What was in work when the broker died was sent again.
    assert len(numbers) <= 3020
