"""The journal remembers what was sent, and what may have been."""

from __future__ import annotations

from pathlib import Path

import pytest

from infertool.deadletters.archive.journal import Journal, JournalError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dead.jsonl"


def test_what_was_sent_is_known_the_next_time(path: Path) -> None:
    with Journal(path) as journal:
        journal.sending(["a", "b"])
        journal.sent(["a", "b"])
        assert journal.has("a")
    with Journal(path) as journal:
        assert (journal.has("a"), journal.has("b"), journal.has("c"), journal.in_doubt) == (True, True, False, 0)
    assert journal.path.name == "dead.jsonl.journal"


def test_what_was_in_work_is_in_doubt_until_it_is_sent(path: Path) -> None:
    with Journal(path) as journal:
        journal.sending(["a", "b"])
        journal.sent(["a"])
    with Journal(path) as journal:
        assert (journal.has("b"), journal.in_doubt) == (False, 1)
        journal.sending(["b"])
        journal.sent(["b"])
        assert (journal.has("b"), journal.in_doubt) == (True, 0)


def test_what_was_not_sent_is_neither_sent_nor_in_doubt(path: Path) -> None:
    with Journal(path) as journal:
        journal.sending(["a", "b"])
        journal.sent(["a"])
        journal.unsent(["b"])
        assert (journal.has("b"), journal.in_doubt) == (False, 0)
    with Journal(path) as journal:
        assert (journal.has("b"), journal.in_doubt) == (False, 0)


def test_a_line_that_was_cut_short_says_nothing_and_is_written_over(path: Path) -> None:
    with Journal(path) as journal:
        journal.sending(["a"])
        journal.sent(["a"])
        journal.sending(["b"])
    whole = journal.path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for size in range(last, len(whole)):
        journal.path.write_bytes(whole[:size])
        with Journal(path) as again:
            assert (again.has("a"), again.has("b"), again.in_doubt) == (True, False, 0)
            again.sent(["c"])
        with Journal(path) as again:
            assert again.has("c")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{}\n", "damaged"),
        (b"x\n", "damaged"),
        (b'{"infertool_journal":3,"sent":[]}\n', "version 3"),
        (b'{"infertool_journal":1,"sent":["ID:1"]}\n', "version 1"),
    ],
)
def test_a_spoiled_line_is_named(path: Path, line: bytes, says: str) -> None:
    with Journal(path) as journal:
        journal.sent(["a"])
    journal.path.write_bytes(journal.path.read_bytes() + line)
    with pytest.raises(JournalError, match=says):
        Journal(path)


def test_two_runs_at_once(path: Path) -> None:
    with Journal(path), pytest.raises(JournalError, match="another run"):
        Journal(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be written"):
        Journal(tmp_path / "no" / "dead.jsonl")
