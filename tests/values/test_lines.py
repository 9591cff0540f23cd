"""Lines end at `\n` alone: a string in JSON may hold any other line break."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import infertool
from infertool.channels.event import ChannelEvent
from infertool.channels.recording import Recorder, RecordReader
from infertool.load import payloads
from infertool.watch import panes
from infertool.watch.entry import read
from infertool.watch.formatting import ASCII, UNICODE, Glyphs

BREAKS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r", "\n", "\r\n"]
# JSON holds these raw.
RAW = [each for each in BREAKS if each >= "\x7f"]


def test_nothing_splits_at_other_line_breaks() -> None:
    """`str.splitlines` knows ten line breaks, JSON lines and TOML but one."""
    folder = Path(infertool.__file__).parent
    assert [str(path) for path in folder.rglob("*.py") if "splitlines" in path.read_text()] == []


@pytest.mark.parametrize("ends", BREAKS)
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_the_detail_shows_them(ends: str, glyphs: Glyphs) -> None:
    entry = read(1, ChannelEvent("t", "e", {"a": f"x{ends}y", f"k{ends}": 1}, 1.0))
    plain = read(1, ChannelEvent("t", "e", {"a": "xy", "k": 1}, 1.0))
    lines = ["".join(text for text, _ in line) for line in panes.detail_lines(entry, 2.0, 300, glyphs)]
    assert len(lines) == len(panes.detail_lines(plain, 2.0, 300, glyphs))
    assert all(line.isprintable() for line in lines)
    [shown] = [line for line in lines if '"a"' in line]
    assert len(shown) > len('  "a": "xy",') + 1


@pytest.mark.parametrize("ends", RAW)
def test_records_and_payload_files(tmp_path: Path, ends: str) -> None:
    arrivals = [ChannelEvent("t", "e", {"a": f"x{ends}y", "n": n}, 1.0) for n in range(3)]
    record = tmp_path / "r.jsonl"
    recorder = Recorder(str(record))
    recorder.write(arrivals)
    recorder.close()
    reader = RecordReader(str(record))
    assert [each for batch in reader.batches() for each in batch] == arrivals
    assert reader.skipped == 0
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(each.payload, ensure_ascii=False) + "\n" for each in arrivals))
    assert [json.loads(each) for each in payloads.read(str(file))] == [each.payload for each in arrivals]
