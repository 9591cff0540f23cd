"""Written events are read back; invalid lines are skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies._internal.core import DataObject

from infertool.channels.event import TOO_DEEP, ChannelEvent
from infertool.channels.recording import Dedup, Recorder, RecordError, RecordReader, line
from tests.support.present import present

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
SECONDS = st.floats(0, 1e11)
ARRIVALS = st.lists(st.builds(ChannelEvent, TEXT, TEXT, JSON, SECONDS, TEXT), max_size=8)
NO_RECORDS = [
    b"garbage", b"[]", b"{}", b"null", b'{"topic":"t","event":"e","payload":1}', b"\xff\xfe\0", b"[" * 5000,
    b'{"topic":1,"event":"e","payload":1,"at":1}', b'{"topic":"t","event":"e","payload":1,"at":"now"}',
    b'{"topic":"t","event":"e","at":1}',
]  # fmt: skip


def read(path: Path) -> tuple[list[ChannelEvent], int]:
    reader = RecordReader(str(path))
    arrivals = [arrival for batch in reader.batches() for arrival in batch]
    assert reader.count == len(arrivals)
    return arrivals, reader.skipped


@given(ARRIVALS)
def test_written_events_are_read_back(tmp_path_factory: pytest.TempPathFactory, arrivals: list[ChannelEvent]) -> None:
    path = tmp_path_factory.mktemp("record") / "r.jsonl"
    recorder = Recorder(str(path))
    recorder.write(arrivals)
    recorder.close()
    assert read(path) == (arrivals, 0)
    assert [json.loads(each)["at"] for each in path.read_bytes().splitlines()] == [each.at for each in arrivals]


@given(ARRIVALS, st.data())
def test_a_cut_recording_loses_one_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[ChannelEvent], data: DataObject
) -> None:
    path = tmp_path_factory.mktemp("record") / "r.jsonl"
    whole = b"".join(line(each) + b"\n" for each in arrivals)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept, skipped = read(path)
    lines = whole[:cut].count(b"\n")
    assert kept[:lines] == arrivals[:lines]
    assert len(kept) - lines + skipped <= 1
    recorder = Recorder(str(path))
    recorder.write([ChannelEvent("t", "e", 1, 2.0)])
    recorder.close()
    assert read(path) == ([*kept, ChannelEvent("t", "e", 1, 2.0)], skipped)


@given(st.binary())
def test_any_bytes_can_be_read(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    path = tmp_path_factory.mktemp("record") / "r.jsonl"
    path.write_bytes(garbage)
    read(path)


def test_invalid_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    good = line(ChannelEvent("t", "e", {"a": 1}, 3.5))
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\n".join([good, *NO_RECORDS, b"", b"  ", good.replace(b"}}", b'},"extra":1}'), good]))
    assert read(path) == ([ChannelEvent("t", "e", {"a": 1}, 3.5)] * 3, len(NO_RECORDS))


def test_more_than_one_read(tmp_path: Path) -> None:
    arrivals = [ChannelEvent("t", "e", {"n": n, "pad": "x" * 300_000}, float(n)) for n in range(20)]
    big = ChannelEvent("t", "e", "y" * 5_000_000, 20.0)
    path = tmp_path / "r.jsonl"
    recorder = Recorder(str(path))
    recorder.write([*arrivals, big])
    recorder.close()
    assert read(path) == ([*arrivals, big], 0)


def test_values_that_json_does_not_hold() -> None:
    assert json.loads(line(ChannelEvent("t", "e", b"\0\xff", 1.0)))["payload"] == "\0\xff"
    deep = json.loads(b"[" * 900 + b"]" * 900)
    text = line(ChannelEvent("t", "e", {"deep": deep, "beside": b"\1"}, 1.0))
    assert TOO_DEEP.encode() in text
    assert json.loads(text)["payload"]["beside"] == "\1"


def test_source_is_left_out_where_there_is_none() -> None:
    assert list(json.loads(line(ChannelEvent("t", "e", 1, 2.0)))) == ["topic", "event", "payload", "at"]
    assert json.loads(line(ChannelEvent("t", "e", 1, 2.0, "prod")))["source"] == "prod"


@pytest.mark.parametrize(("path", "why"), [("/nowhere/r", "No such file"), ("/", "Is a directory")])
def test_a_file_that_cannot_be_opened(path: str, why: str) -> None:
    for opener in (Recorder, RecordReader):
        with pytest.raises(RecordError, match=f"the record {path} cannot be .*: {why}"):
            [*opener(path).batches()] if opener is RecordReader else opener(path)


def test_a_full_disk_is_one_clear_error() -> None:
    recorder = Recorder("/dev/full")
    with pytest.raises(RecordError, match="/dev/full cannot be written: No space left on device; make room"):
        recorder.write([ChannelEvent("t", "e", 1, 2.0)])
    recorder.close()


def test_a_pipe_whose_reader_has_ended_is_one_clear_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    recorder = Recorder(str(pipe))
    recorder.write([ChannelEvent("t", "e", 1, 2.0)])
    assert os.read(reader, 1000) == line(ChannelEvent("t", "e", 1, 2.0)) + b"\n"
    os.close(reader)
    with pytest.raises(RecordError, match="cannot be written: Broken pipe"):
        recorder.write([ChannelEvent("t", "e", "x" * 1_000_000, 2.0)])
    recorder.close()


def test_standard_input_is_read_as_it_comes() -> None:
    program = (
        "from infertool.channels.recording import RecordReader\n"
        "for batch in RecordReader('-').batches(): print(len(batch), flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for _ in range(2):
        present(process.stdin).write(line(ChannelEvent("t", "e", 1, 2.0)) + b"\n")
        present(process.stdin).flush()
        assert present(process.stdout).readline() == b"1\n"
    process.communicate()
    assert process.returncode == 0


def test_failures_that_differ_in_a_number_past_64_bits_are_two() -> None:
    def failure(number: int) -> ChannelEvent:
        return ChannelEvent("t", "inference_failed", {"event_id": "e", "status": "FAILED", "n": number}, 1.0)

    dedup = Dedup()
    dedup.note([failure(10**25)])
    assert dedup.without([failure(10**25), failure(10**25 + 1)]) == [failure(10**25 + 1)]
