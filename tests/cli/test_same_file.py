"""A command does not write to a file that it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from infertool.cli.common.options import check_apart
from infertool.errors import UsageError
from tests.support.running import infertool


@pytest.mark.parametrize("other", ["f.jsonl", "./f.jsonl", "g/../f.jsonl", "link", "hard"])
def test_the_same_file_under_any_name(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("g").mkdir()
    Path("f.jsonl").write_text("")
    Path("link").symlink_to("f.jsonl")
    Path("hard").hardlink_to("f.jsonl")
    with pytest.raises(UsageError, match="is the file of --from"):
        check_apart("--audit", Path(other), ("--from", Path("f.jsonl")))
    check_apart("--audit", Path("else.jsonl"), ("--from", Path("f.jsonl")))
    check_apart("--audit", None, ("--from", Path("f.jsonl")))


@pytest.mark.parametrize(
    "command",
    [
        ("replay-dlq", "--from", "f.jsonl", "--audit", "f.jsonl", "--yes"),
        ("replay-dlq", "--from", "f.jsonl", "--audit", "f.jsonl.journal", "--yes"),
        ("watch", "--from", "f.jsonl", "--record", "./f.jsonl", "--once"),
        ("loadgen", "report", "f.jsonl", "--html", "f.jsonl"),
        ("loadgen", "report", "f.jsonl", "--png", "f.jsonl"),
        ("loadgen", "report", "f.jsonl", "--html", "x", "--png", "x"),
    ],
)
def test_each_command_refuses_and_leaves_the_file(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.jsonl").write_text("kept\n")
    done = infertool(*command)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "the output would be written into the input" in done.stderr
    assert Path("f.jsonl").read_text() == "kept\n"
    assert [each.name for each in tmp_path.iterdir()] == ["f.jsonl"]
