"""Texts of a known width, for any content."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from infertool.watch import formatting
from infertool.watch.formatting import ASCII, UNICODE, of_terminal


@given(st.text(), st.integers(0, 60), st.sampled_from([UNICODE, ASCII]))
@example("\x1b[31mred\x07", 20, UNICODE)
@example("日本語のテキスト", 7, UNICODE)
@example("\u202eabc\u2066", 9, UNICODE)
@example("שלום עולם", 30, ASCII)
def test_a_text_fits_exactly_and_is_never_raw(text: str, width: int, glyphs: formatting.Glyphs) -> None:
    shown = formatting.fit(text, width, glyphs)
    assert cell_len(shown) == width
    assert shown.isprintable()
    assert shown.isascii() or glyphs is UNICODE


@given(st.text(max_size=30), st.integers(1, 10))
def test_a_text_is_taken_apart_and_nothing_is_lost(text: str, width: int) -> None:
    head, rest = formatting.take(text, width)
    assert head + rest == text
    assert cell_len(head) <= width


@given(st.floats(-1, 3, allow_nan=False), st.integers(1, 30), st.sampled_from([UNICODE, ASCII]))
def test_a_bar_has_its_width(share: float, width: int, glyphs: formatting.Glyphs) -> None:
    full, rest = formatting.bar(share, width, glyphs)
    assert cell_len(full + rest) == width


def test_a_trace_shows_and_nothing_does_not() -> None:
    assert formatting.spark([0, 0.001, 50, 100], UNICODE) == " ▁▄█"
    assert formatting.spark([0, 0], UNICODE) == "  "


@pytest.mark.parametrize(
    ("share", "said"), [(None, "-"), (0.0, "0%"), (1.0, "100%"), (0.9999, "99.9%"), (0.0001, "0.1%"), (0.5, "50.0%")]
)
def test_a_percentage_is_whole_only_when_it_is(share: float | None, said: str) -> None:
    assert formatting.percent(share) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "- ms"),
        (0.44, "0.4 ms"),
        (-3200.0, "-3200 ms"),
        (12_345.0, "12.3 s"),
        (-7.2e6, "-2.0 h"),
        (300, "300 ms"),
    ],
)
def test_milliseconds(value: float | None, said: str) -> None:
    assert formatting.ms(value) == said


@pytest.mark.parametrize("at", [1e300, -1e300, 1e18])
def test_an_impossible_time_is_no_time(at: float) -> None:
    assert formatting.clock(at) == "--:--:--"


def test_signs_the_terminal_can_show() -> None:
    assert of_terminal({"LANG": "de_DE.ISO-8859-1"}) is ASCII
    assert of_terminal({"LANG": "en_US.utf8"}) is UNICODE
    assert of_terminal({"LANG": "en_US.UTF-8", "LC_ALL": "C"}) is ASCII
    assert of_terminal({"LANG": "en_US.UTF-8", "TERM": "linux"}) is ASCII
    assert of_terminal({}) is UNICODE
