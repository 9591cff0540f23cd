"""The run file: it is read as it was written, also if it is cut short."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies._internal.core import DataObject

from infertool.errors import InfertoolError, UsageError
from infertool.load import record
from infertool.load.record import Counts, Run, RunFileError, RunWriter, Second
from infertool.load.tally import Measure
from infertool.telemetry.latencies import Latencies, Percentiles
from tests.load.runs import info, played

COUNT = st.integers(0, 2**40)
FIGURE = st.none() | st.floats(0, 3.6e6)
FIGURES = st.builds(Percentiles, FIGURE, FIGURE, FIGURE, FIGURE, FIGURE, FIGURE, COUNT)
SECONDS = st.builds(
    Second, st.integers(-1000, 100_000), *[COUNT] * 9, st.dictionaries(st.sampled_from(Measure), FIGURES)
)  # fmt: skip
TIMES = st.dictionaries(st.sampled_from(Measure), st.lists(st.floats(0, 3600), min_size=1, max_size=20))


# A run, and the bytes of its file.
Whole = tuple[Run, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path = tmp_path_factory.mktemp("whole") / "run.jsonl"
    return played(path=path), path.read_bytes()


def figures(run: Run) -> dict[str, Any]:
    return {measure: latencies.percentiles() for measure, latencies in run.histograms.items()}


def test_a_run_is_read_as_it_was_written(whole: Whole, tmp_path: Path) -> None:
    run, data = whole
    path = tmp_path / "run.jsonl"
    path.write_bytes(data)
    back = record.read(path)
    assert (back.info, back.seconds, back.counts) == (run.info, run.seconds, run.counts)
    assert (back.elapsed_s, back.cpu_s, back.notes, back.complete) == (run.elapsed_s, run.cpu_s, run.notes, True)
    assert figures(back) == figures(run)


@given(st.lists(SECONDS, max_size=5), TIMES, st.text(), st.builds(Counts, *[COUNT] * 5, *[st.none() | COUNT] * 8))
def test_any_record_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    seconds: list[Second],
    times: dict[Any, list[float]],
    text: str,
    counts: Counts,
) -> None:
    path = tmp_path_factory.mktemp("any") / "run.jsonl"
    histograms = {measure: Latencies() for measure in times}
    for measure, values in times.items():
        histograms[measure].add(values)
    run = Run(info(plan=text, options={text: text}), tuple(seconds), counts, histograms, 1.5, None, (text,))
    with RunWriter(path, run.info) as writer:
        for second in seconds:
            writer.second(second, histograms)
        writer.end(run)
    back = record.read(path)
    assert (back.info, back.seconds, back.counts, back.notes) == (run.info, run.seconds, counts, run.notes)
    assert figures(back) == figures(run)


@given(data=st.data())
def test_a_file_cut_anywhere_is_read_up_to_the_cut(
    whole: Whole, tmp_path_factory: pytest.TempPathFactory, data: DataObject
) -> None:
    run, written = whole
    head = written.index(b"\n")
    cut = data.draw(st.integers(head + 1, len(written) - 2))  # without its last byte the last line is a whole one
    path = tmp_path_factory.mktemp("cut") / "run.jsonl"
    path.write_bytes(written[:cut])
    back = record.read(path)
    assert not back.complete
    # A line that lacks only its newline is complete.
    assert len(back.seconds) in {written[:cut].count(b"\n") - 1, written[: cut + 1].count(b"\n") - 1}
    assert back.seconds == run.seconds[: len(back.seconds)]
    counted = [second for second in back.seconds if second.t >= 0]
    assert back.counts.sent == sum(second.sent for second in counted)
    assert back.counts.lost is None
    assert back.elapsed_s == len(counted)
    samples = back.histograms[Measure.E2E].count if counted else 0
    assert samples == sum(second.latency_ms[Measure.E2E].count for second in counted)


def test_the_seconds_add_up_to_the_whole(whole: Whole, tmp_path: Path) -> None:
    run, written = whole
    path = tmp_path / "run.jsonl"
    path.write_bytes(written[: written.rindex(b"\n", 0, -1) + 1])
    assert figures(record.read(path)) == figures(run)


def test_unmeasured_counts_are_unknown_in_a_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    played(path=path, measures=(Measure.SLIP,))
    path.write_bytes(path.read_bytes()[:-3])
    counts = record.read(path).counts
    assert (counts.sent, counts.confirmed, counts.results, counts.duplicates) == (1000, None, None, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no file of infertool loadgen --save"),
        (b"\n", "is no file of infertool loadgen --save"),
        (b'{"event_id": "x"}\n', "is no file of infertool loadgen --save"),
        (b"\x1f\x8b\x08\x00" * 100, "is no file of infertool loadgen --save"),
        (b"[" * 100_000, "is no file of infertool loadgen --save"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(RunFileError, match=said):
        record.read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((b'{"infertool_loadgen":1', b'{"infertool_loadgen":2'), "is of version 2; this infertool knows version 1"),
        ((b'"sent":100', b'"sent":"x"'), "is damaged in line 2"),
        ((b'{"line":"second"', b'{"line":"minute"'), "is damaged in line 2"),
    ],
)
def test_a_damaged_file_is_refused_by_its_line(
    whole: Whole, tmp_path: Path, change: tuple[bytes, bytes], said: str
) -> None:
    path = tmp_path / "run.jsonl"
    assert whole[1].count(change[0])
    path.write_bytes(whole[1].replace(*change, 1))
    with pytest.raises(RunFileError, match=said):
        record.read(path)


def test_a_damaged_histogram_is_refused_where_it_is_needed(whole: Whole, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    lines = whole[1].splitlines(keepends=True)
    for line in (6, len(lines)):  # a second of a file cut short behind it; the sums of a whole one
        damaged = lines[line - 1].replace(b'"slip":"HIST', b'"slip":"HISX')
        assert damaged != lines[line - 1]
        path.write_bytes(b"".join([*lines[: line - 1], damaged]))
        with pytest.raises(RunFileError, match=f"is damaged in line {line}"):
            record.read(path)


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="cannot be read: Is a directory"):
        record.read(tmp_path)
    with pytest.raises(RunFileError, match="cannot be read: No such file"):
        record.read(tmp_path / "none")


def test_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("dear")
    with pytest.raises(UsageError, match="is there already"):
        RunWriter(path, info())
    assert path.read_text() == "dear"
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        RunWriter(tmp_path / "none" / "run.jsonl", info())


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunWriter(path, info()) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        try:
            with pytest.raises(InfertoolError, match="cannot be written: File too large"):
                writer.second(Second(0), {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()


def test_a_run_without_a_second_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with RunWriter(path, info()):
        assert record.read(path).seconds == ()
    assert not path.exists()


def test_a_disk_that_is_full_from_the_start_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        with pytest.raises(InfertoolError, match="cannot be written: File too large"):
            RunWriter(path, info())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()
