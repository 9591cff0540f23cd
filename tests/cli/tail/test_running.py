"""`infertool tail` against channel servers: recordings, chosen fields, statistics, several servers."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from infertool.channels.event import ChannelEvent
from infertool.channels.recording import RecordReader, line
from tests.channels.conftest import Pusher
from tests.cli.tail.conftest import LONG, output, results
from tests.support.hub import HubProcess
from tests.support.ports import free_port
from tests.support.present import present
from tests.support.running import Running, infertool

FAILURE = {
    "event_id": "bad",
    "status": "FAILED",
    "stage": "infer",
    "error_type": "E",
    "error": "\x1b[2Jno",
    "attempts": 1,
}


def recorded(path: Path) -> list[ChannelEvent]:
    reader = RecordReader(str(path))
    arrivals = [arrival for batch in reader.batches() for arrival in batch]
    assert reader.skipped == 0
    return arrivals


def ids(lines: list[str]) -> list[str]:
    return [json.loads(each)["payload"]["event_id"] for each in lines]


def test_a_recording_holds_all_events_in_the_format_of_jsonl(
    tailing: Callable[..., Running], pusher: Pusher, tmp_path: Path
) -> None:
    record = tmp_path / "r.jsonl"
    running = tailing("--record", str(record), "--event", "new_result", "--count", "3", "-o", "jsonl")
    pusher.push("inference_failed", FAILURE)
    pusher.push("new_result", *results(1, 2, 3))
    lines = output(running)
    assert ids(lines) == ["e1", "e2", "e3"]
    kept = recorded(record)
    assert [arrival.payload["event_id"] for arrival in kept] == ["bad", "e1", "e2", "e3"]
    assert [line(arrival).decode() for arrival in kept[1:]] == lines


def test_a_recording_is_printed_first_and_continued(
    tailing: Callable[..., Running], pusher: Pusher, tmp_path: Path
) -> None:
    """Also a recording that was cut or contains other lines; without duplicates."""
    record = tmp_path / "r.jsonl"
    old = [ChannelEvent("public:results", "new_result", each, 1.0) for each in results(1, 2)]
    old.append(ChannelEvent("elsewhere", "new_result", {"event_id": "other topic"}, 1.0))
    record.write_bytes(b"".join(line(each) + b"\n" for each in old) + b"garbage\n" + line(old[0])[:50])
    running = tailing("--since-file", str(record), "--record", str(record), "--count", "4", "-o", "jsonl")
    pusher.push("new_result", *results(2, 3))
    pusher.push("inference_failed", {**FAILURE, "event_id": "e2"})
    assert ids(output(running)) == ["e1", "e2", "e3", "e2"]
    assert f"2 lines of {record} are no records; skipped" in running.log.read_text()
    reader = RecordReader(str(record))
    written = [arrival for batch in reader.batches() for arrival in batch][len(old) :]
    assert [(each.event, each.payload["event_id"]) for each in written] == [
        ("new_result", "e3"), ("inference_failed", "e2")
    ]  # fmt: skip
    assert reader.skipped == 2


def test_a_new_failure_is_printed_again_and_a_repeated_push_is_not(
    tailing: Callable[..., Running], pusher: Pusher, tmp_path: Path
) -> None:
    """As after a replay that failed again; with and without the time of the failure."""
    record = tmp_path / "r.jsonl"
    timed = {**FAILURE, "event_id": "timed", "failed_at": "2026-11-25T03:00:00.000Z"}
    untimed = {**FAILURE, "event_id": "untimed"}
    result = results(1)[0]
    old = [ChannelEvent("public:alerts", "inference_failed", each, 1.0) for each in (timed, untimed)]
    old.append(ChannelEvent("public:results", "new_result", result, 1.0))
    record.write_bytes(b"".join(line(each) + b"\n" for each in old))
    running = tailing("--since-file", str(record), "--record", str(record), "--count", "6", "-o", "jsonl")
    again = {**timed, "failed_at": "2026-11-25T04:00:00.000Z"}
    pusher.push("inference_failed", timed, {**timed, "original_payload": None}, untimed, again)
    pusher.push("inference_failed", {**untimed, "attempts": 3})
    pusher.push("new_result", result, {**result, "completed_at": "2026-11-25T05:00:00.000Z"}, *results(2))
    assert ids(output(running)) == ["timed", "untimed", "e1", "timed", "untimed", "e2"]
    assert [each.payload["event_id"] for each in recorded(record)] == [
        "timed", "untimed", "e1", "timed", "untimed", "e2",
    ]  # fmt: skip


def test_chosen_fields_and_templates(tailing: Callable[..., Running], pusher: Pusher) -> None:
    columns = tailing("--fields", "request_id,prediction.class,error", "-o", "pretty", "--count", "2")
    objects = tailing("--fields", "request_id,prediction.class,error", "--count", "2")
    template = tailing("--format", "{event}: {error} {prediction.confidence:.1f}", "--count", "2")
    pusher.push("inference_failed", FAILURE)
    pusher.push("new_result", *results(1))
    assert [each.split() for each in output(columns)] == [
        ["request_id", "prediction.class", "error"], ["-", "-", "\\x1b[2Jno"], ["r1", "A", "-"]
    ]  # fmt: skip
    assert [list(json.loads(each).values()) for each in output(objects)] == [
        [None, None, "\x1b[2Jno"],
        ["r1", "A", None],
    ]
    assert output(template) == ["inference_failed: \\x1b[2Jno -", "new_result: - 0.5"]


def test_statistics_of_matching_events(tailing: Callable[..., Running], pusher: Pusher) -> None:
    running = tailing("--stats", "10m", "--count", "5", "--where", "event_id != 'e9'")
    pusher.push("inference_failed", {**FAILURE, "processing_ms": "soon"})
    pusher.push("new_result", *results(0, 9, 10, 30), {"event_id": "odd"})
    output(running)
    stats = [each for each in running.log.read_text().splitlines() if each.startswith("stats ")]
    shown = [re.sub(r"\d+\.\d+ s|\d+\.\d/s", "N", each) for each in stats]
    assert shown == [
        "stats N  public:results  N  4 events  3 ok  0 failed  p50 20.0 ms  p99 40.0 ms",
        "stats N  public:alerts  N  1 events  0 ok  1 failed  p50 -  p99 -",
    ]


def test_statistics_of_times_of_any_size(tailing: Callable[..., Running], pusher: Pusher) -> None:
    times = [10**400, -1, 1.7e308, True, [], 5]
    running = tailing("--stats", "10m", "--count", str(len(times)))
    pusher.push("new_result", *({"status": "SUCCESS", "processing_ms": each} for each in times))
    output(running)
    [shown] = [each for each in running.log.read_text().splitlines() if "public:results" in each and "stats" in each]
    assert "  6 events  6 ok  0 failed  p50 5.0 ms  p99 3600" in shown


@pytest.mark.parametrize("command", ["tail", "watch"])
@pytest.mark.parametrize("servers", [1, 2])
def test_a_topic_that_is_no_utf8_is_an_error(command: str, servers: int, hub: HubProcess) -> None:
    urls = [hub.url, hub.url.replace("127.0.0.1", "localhost")][:servers]
    arguments = [word for url in urls for word in ("--phoenix", url)]
    if command == "watch":
        arguments = ["--phoenix", hub.url, "--once"]
    done = infertool(command, os.fsdecode(b"t\xff"), *arguments)
    assert (done.returncode, done.stdout) == (3 if command == "watch" else 2, "")
    assert done.stderr.splitlines()[-1].startswith("infertool: t\\udcff cannot be joined: not encodable as JSON: ")


def test_statistics_are_printed_without_events(tailing: Callable[..., Running]) -> None:
    running = tailing("--stats", "50ms")
    running.wait_for("public:alerts  0.0/s  0 events", 2)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(LONG) == 130


def test_several_servers_of_which_some_are_unreachable(
    tailing: Callable[..., Running], hub: HubProcess, pusher: Pusher
) -> None:
    other = HubProcess(free_port())
    phoenix = ("--phoenix", hub.url, "--phoenix", other.url, "--phoenix", "ws://no-such-host.invalid/socket/websocket")
    running = tailing(*phoenix, "--count", "4", "-o", "jsonl")
    running.wait_for("; trying again", 2)

    with other:  # it starts late
        running.wait_for("following", 2)
        pusher.push("new_result", *results(1))
        sources = [json.loads(present(running.process.stdout).readline())["source"]]
        late = Pusher(other.url)
        late.push("new_result", *results(2))
        late.close()
        sources.append(json.loads(present(running.process.stdout).readline())["source"])
        other.kill()
        running.wait_for(f"lost {other.url}")
        pusher.push("new_result", *results(3))
        present(running.process.stdout).readline()
        other.start()
        running.wait_for(f"connected to {other.url} again; broadcasts in between are missed (disconnected for ")
        while running.process.poll() is None:  # the join may still be under way
            late = Pusher(other.url)
            late.push("new_result", *results(4))
            late.close()
    assert sources == [f"127.0.0.1:{hub.port}", f"127.0.0.1:{other.port}"]
    assert json.loads(output(running)[0])["source"] == f"127.0.0.1:{other.port}"
    assert running.log.read_text().count(f"lost {other.url}") == 1


def test_if_all_servers_are_unreachable_the_first_is_named() -> None:
    ports = [free_port(), free_port()]
    urls = [f"ws://u:secret@127.0.0.1:{port}/socket/websocket?token=secret" for port in ports]
    done = infertool("tail", "t", *(word for url in urls for word in ("--phoenix", url)))
    assert (done.returncode, done.stdout) == (3, "")
    [error] = done.stderr.splitlines()
    assert f"nothing listens at ws://127.0.0.1:{ports[0]}/socket/websocket; " in error


def test_a_refused_topic_leaves_one_server_out(hub: HubProcess) -> None:
    with HubProcess(token="t0ken") as closed:
        phoenix = ("--phoenix", closed.url, "--phoenix", hub.url)
        done = infertool("tail", "service:inference", *phoenix, "--for", "1s")
    assert done.returncode == 4
    *notes, end = done.stderr.splitlines()
    following, left_out = sorted(notes)
    assert left_out.startswith(f"joining service:inference at {closed.url} was refused: unauthorized; ")
    assert left_out.endswith("; left out")
    assert following == f"following service:inference at {hub.url}"
    assert "0 matching" in end


def test_large_and_deep_events(tailing: Callable[..., Running], pusher: Pusher, tmp_path: Path) -> None:
    record = tmp_path / "r.jsonl"
    running = tailing("--record", str(record), "--count", "3", "-o", "pretty")
    deep = json.loads("[" * 240 + "]" * 240)
    large = {"event_id": "big", "blob": "x" * 5_000_000}
    pusher.push("new_result", large, {"event_id": "deep", "at": deep}, {})
    first, second, third = output(running)
    assert len(first) == 400
    assert "deep" in second
    assert third.endswith("public:results new_result  {}")
    kept = recorded(record)
    assert kept[0].payload == large
    assert kept[1].payload["event_id"] == "deep"


def test_the_time_ends_also_while_a_record_does_not(hub: HubProcess, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held_open = os.open(pipe, os.O_RDWR)
    try:
        os.write(held_open, line(ChannelEvent("public:results", "new_result", {"event_id": "e0"}, 1.0)) + b"\n")
        done = infertool("tail", "public:results", "--phoenix", hub.url, "--since-file", str(pipe), "--for", "5s")
    finally:
        os.close(held_open)
    # On a very slow machine the time is over before the record is read.
    assert (done.returncode, ids(done.stdout.splitlines())) in [(0, ["e0"]), (4, [])]


def test_invalid_recordings(hub: HubProcess, tmp_path: Path) -> None:
    for options, words in [
        (("--since-file", "no-such"), ["no-such cannot be read: No such file", "check"]),
        (("--since-file", str(tmp_path)), ["cannot be read: Is a directory"]),
        (("--record", str(tmp_path / "a" / "b")), ["cannot be written: No such file"]),
    ]:
        done = infertool("tail", "public:results", "--phoenix", hub.url, *options)
        assert (done.returncode, done.stdout) == (1, "")
        [error] = done.stderr.splitlines()
        assert not [word for word in words if word not in error], error


def test_a_full_disk_ends_tail_with_one_error(tailing: Callable[..., Running], pusher: Pusher) -> None:
    running = tailing("--record", "/dev/full")
    pusher.push("new_result", *results(1))
    assert running.process.wait(LONG) == 1
    following, error = running.log.read_text().splitlines()
    assert following.startswith("following")
    assert error.startswith("infertool: the record /dev/full cannot be written: No space left on device; make room")


def test_a_locale_without_unicode(hub: HubProcess, tmp_path: Path) -> None:
    record = tmp_path / "r.jsonl"
    payload = {"x": "\u00e9\u65e5\U0001f600"}
    record.write_bytes(line(ChannelEvent("public:results", "new_result", payload, 1.0)))
    arguments = ("tail", "public:results", "--phoenix", hub.url, "--since-file", str(record), "--count", "1")
    for form in ("jsonl", "pretty"):
        done = infertool(*arguments, "-o", form, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout[done.stdout.index("{") :]) == (
            payload
            if form == "pretty"
            else {"topic": "public:results", "event": "new_result", "payload": payload, "at": 1.0}
        )
