"""Whatever an event holds, each line of the view has its width, and only characters that the terminal can show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from infertool.channels.event import ChannelEvent
from infertool.watch.entry import json_line, read
from infertool.watch.formatting import ASCII, UNICODE, Glyphs, Line
from infertool.watch.panes import detail_lines
from infertool.watch.rows import alert_row, fit_columns, header_lines, result_row, rule_row
from infertool.watch.state import State
from tests.support.examples import examples
from tests.watch.samples import NOW

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from([
    "\x1b[31m", "\u202e", "日本語" * 20, "é\u0301", "[red]", "\t", "x" * 300, "SUCCESS", "FAILED", "firing", "👩‍👩‍👧",
])  # fmt: skip
NAMES = st.sampled_from([
    "event_id", "request_id", "status", "prediction", "class", "confidence", "processing_ms", "received_at", "attempts",
    "stage", "error_type", "error", "rule", "state", "value", "threshold", "since", "original_payload", "sent_at",
    "traceparent",
])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
    | st.sampled_from([10**400, -(10**400), 1e308, -1e308, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=6,
)  # fmt: skip
EVENTS = st.builds(
    ChannelEvent,
    topic=TEXTS, event=st.sampled_from(["new_result", "inference_failed", "alert"]) | TEXTS,
    payload=st.dictionaries(NAMES | TEXTS, VALUES, max_size=6) | VALUES,
    at=st.sampled_from([0.0, NOW, NOW + 1e6, -1e300, 1e300]),
)  # fmt: skip


def check(line: Line, glyphs: Glyphs) -> int:
    text = "".join(piece for piece, _ in line)
    assert text.isprintable(), text
    assert text.isascii() or glyphs is UNICODE, text
    return cell_len(text)


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@examples(20)
@given(event=EVENTS, width=st.integers(20, 160))
def test_any_event_is_lines_of_a_width(glyphs: Glyphs, event: ChannelEvent, width: int) -> None:
    entry = read(1, event)
    json_line(entry)
    rows: list[Any] = [result_row(entry, fit_columns(width), NOW, glyphs), alert_row(entry, width, NOW, glyphs)]
    sizes = {check(row, glyphs) for row in rows[:1]}
    assert (
        len(
            sizes
            | {check(result_row(read(2, ChannelEvent("t", "e", {}, NOW)), fit_columns(width), NOW, glyphs), glyphs)}
        )
        == 1
    )
    check(rows[1], glyphs)
    for line in detail_lines(entry, NOW, width, glyphs):
        assert check(line, glyphs) <= width
    state = State(event.topic, 10)
    state.topics = {event.topic: "gone"}
    state.take([event])
    state.work()
    for line in header_lines([state, state], state, NOW, width, glyphs):
        check(line, glyphs)
    for rule in state.rules.values():
        check(rule_row(rule, width, NOW, glyphs), glyphs)
