"""`infertool loadgen report` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infertool.load.tally import Measure
from tests.load.runs import played
from tests.support.running import environment


def report(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infertool", "loadgen", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=cwd, timeout=120)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    played(path=folder / "before.jsonl")
    played(path=folder / "after.jsonl", typical_s=0.1)
    return folder


def test_one_run(saved: Path) -> None:
    done = report("before.jsonl", cwd=saved)
    assert (done.returncode, done.stderr) == (0, "")
    assert "986 results + 14 failures (14 dead letters), 0 lost" in done.stdout
    assert "\ne2e   1,000     100" in done.stdout


def test_two_runs_side_by_side(saved: Path) -> None:
    done = report("before.jsonl", "after.jsonl", cwd=saved)
    assert (done.returncode, done.stderr) == (0, "")
    row = next(line for line in done.stdout.splitlines() if line.startswith("e2e.p50_ms"))
    assert float(row.split()[-1].rstrip("x")) == pytest.approx(2, rel=0.1)


def test_json_output(saved: Path) -> None:
    one = json.loads(report("before.jsonl", "-o", "json", cwd=saved).stdout)
    assert one["e2e"]["count"] == one["sent"] == 1000
    two = json.loads(report("before.jsonl", "after.jsonl", "-o", "json", cwd=saved).stdout)
    assert [run["file"] for run in two["runs"]] == ["before.jsonl", "after.jsonl"]
    assert two["comparison"]["sent"] == {"values": [1000, 1000], "differences": [0], "ratios": [1.0]}


def test_a_page_and_a_picture_are_written(saved: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "run.html", tmp_path / "run.png"
    done = report("before.jsonl", "--html", page, "--png", picture, cwd=saved)
    assert (done.returncode, done.stderr) == (0, f"wrote {page}\nwrote {picture}\n")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_assertions_that_hold_and_one_that_does_not(saved: Path, tmp_path: Path) -> None:
    kept = report("before.jsonl", "--assert", "lost == 0", "--assert", "e2e.p50_ms < 100", cwd=saved)
    assert (kept.returncode, kept.stderr) == (0, "")
    assert "held  lost == 0  (lost = 0)" in kept.stdout
    page = tmp_path / "run.html"
    broken = report("before.jsonl", "after.jsonl", "--assert", "e2e.p50_ms < 60", "--html", page, cwd=saved)
    assert broken.returncode == 1
    assert "infertool: --assert does not hold in after.jsonl: 'e2e.p50_ms < 60' (e2e.p50_ms = 9" in broken.stderr
    assert "e2e.p99_ms" in broken.stdout
    assert "Failed" in page.read_text()


def test_a_file_cut_short_is_reported_and_says_so(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_bytes((saved / "before.jsonl").read_bytes()[:-3])
    done = report(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "note: the file ends early" in done.stdout
    assert "- lost" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.jsonl"], "none.jsonl cannot be read: No such file or directory"),
        (["."], "cannot be read: Is a directory"),
        (["other.json"], "other.json is no file of infertool loadgen --save"),
        (["before.jsonl", "--assert", "lots == 0"], "no report has lots; did you mean 'lost'?"),
        (["before.jsonl", "--html", "none/run.html"], "none/run.html cannot be written: No such file or directory"),
        (["before.jsonl"] * 5, "5 files are too many to read side by side; give 4 at most"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(saved: Path, arguments: list[str], said: str) -> None:
    (saved / "other.json").write_text('{"event_id": "x"}\n')
    done = report(*arguments, cwd=saved)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_from_a_file_reaches_the_terminal_raw(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m.jsonl"
    played(path=path, plan="\x1b[2J plan", queue="\u202e queue", measures=(Measure.SLIP,))
    done = report(path, path, "--assert", "'\x1b' == '\x1b'")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "\\x1b[2J plan" in done.stdout


def test_a_page_that_does_not_fit_is_no_usage_error(saved: Path) -> None:
    done = report("before.jsonl", "--html", "/dev/full", cwd=saved)
    assert (done.returncode, done.stderr) == (1, "infertool: /dev/full cannot be written: No space left on device\n")
