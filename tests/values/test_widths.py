"""Columns are aligned for characters of two cells, one, or none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from infertool.channels.event import ChannelEvent, parse_path
from infertool.cli.common import console, deadletters
from infertool.cli.common.eventlines import Columns
from infertool.cli.config import command as config
from infertool.cli.consume import view as consumed
from infertool.cli.loadgen import view as loadview
from infertool.deadletters import letters, selection
from infertool.filters import expression
from infertool.settings.display import Row
from infertool.text import sanitize
from infertool.watch.entry import read
from infertool.watch.formatting import ASCII, UNICODE, Glyphs
from infertool.watch.rows import alert_row, column_titles, fit_columns, result_row, rule_row
from infertool.watch.state import Rule
from tests.support.messages import message

WIDE = ["日本語", "\uff46\uff55\uff4c\uff4c", "한국어", "e\u0301te\u0301", "👍", "naïve", "plain", "x"]


def columns_of(lines: list[str], marks: str) -> set[int]:
    """Return the cells at which `marks`, one of them in each line, stand."""
    return {cell_len(line[: line.index(next(mark for mark in marks if mark in line))]) for line in lines}


@given(st.lists(st.lists(st.text(max_size=8), min_size=3, max_size=3), min_size=1, max_size=6))
def test_aligned(rows: list[list[str]]) -> None:
    marked = [[*row[:2], "#" + row[2]] for row in ([cell.replace("#", "") for cell in row] for row in rows)]
    lines = sanitize.aligned(marked, rights=[False, True])
    assert len(columns_of(lines, "#")) == 1


@pytest.mark.parametrize("wide", WIDE)
def test_one_text(wide: str) -> None:
    assert cell_len(sanitize.left(wide, 10)) == cell_len(sanitize.right(wide, 10)) == 10
    assert sanitize.left(wide, 0) == sanitize.right(wide, 0) == wide


def wide_letters() -> list[letters.DeadLetter]:
    return [letters.read(message(b"{}", original_destination=f"/queue/{wide}")) for wide in WIDE]


def test_peek_and_the_preview() -> None:
    head, *lines = deadletters.letter_table(wide_letters())
    assert {cell_len(line[: line.rindex("-")]) for line in lines} == {cell_len(head[: head.index("error")])}
    grouped = deadletters.group_table(selection.group(wide_letters(), ("origin", "stage")), ("origin", "stage"))
    assert len({cell_len(line[: line.index("ID:test")]) for line in grouped[1:]}) == 1


def test_reports_of_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("", *WIDE), ("sent", *["#"] * len(WIDE)), ("received", *["#"] * len(WIDE))]
    monkeypatch.setattr(loadview, "comparison_rows", lambda names, reports: rows)
    lines = loadview.compared([], [])
    assert len({cell_len(line) for line in lines}) == 1


def test_settings(capsys: pytest.CaptureFixture[str]) -> None:
    config._print_table([Row(wide, wide * 2, "#", hidden=False) for wide in WIDE])
    assert len(columns_of(capsys.readouterr().out.rstrip("\n").split("\n"), "#")) == 1
    said: list[str] = []
    consumed._print_summary(dict.fromkeys(WIDE, "#"), as_json=False, to=said.append)
    assert len(columns_of(said, "#")) == 1


def test_tail() -> None:
    made = Columns([parse_path("a"), parse_path("b")])
    lines = made.lines([ChannelEvent("t", "e", {"a": wide * 20, "b": "#"}, 1.0) for wide in WIDE])
    assert len(columns_of(lines[1:], "#")) == 1


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_watch(glyphs: Glyphs, width: int) -> None:
    fitting = fit_columns(width)
    heads = sum(cell_len(text) for text, _ in column_titles(fitting, glyphs))
    for wide in WIDE:
        result = read(
            1, ChannelEvent("t", "new_result", {"request_id": wide * 9, "prediction": {"class": wide * 9}}, 1.0)
        )
        assert sum(cell_len(text) for text, _ in result_row(result, fitting, 2.0, glyphs)) == heads
        failed = {"status": "FAILED", "request_id": wide * 9, "attempts": wide, "error": wide * 99}
        failure = read(2, ChannelEvent("t", "inference_failed", failed, 1.0))
        assert sum(cell_len(text) for text, _ in alert_row(failure, width, 2.0, glyphs)) <= width
        rule = Rule(wide * 9, wide * 99, 1.0)
        assert sum(cell_len(text) for text, _ in rule_row(rule, width, 2.0, glyphs)) <= width


@pytest.mark.parametrize("wide", WIDE)
def test_the_sign_under_an_expression(wide: str) -> None:
    with pytest.raises(expression.FilterError) as raised:
        expression.compile(f"'{wide}' == 1 §")
    _, text, sign = raised.value.lines()
    assert cell_len(sign) - 1 == cell_len(text[: text.index("§")])


def test_nothing_pads_by_len() -> None:
    """`len` counts characters; `infertool.text.sanitize` counts cells."""
    folder = Path(console.__file__).parents[2]
    pads = re.compile(r"\.[lr]just\(|str\.[lr]just|\.center\(|:[<>^]\{")
    assert [str(path) for path in folder.rglob("*.py") if pads.search(path.read_text())] == []
