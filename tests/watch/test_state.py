"""The state of one bus: counts, lists and display, for any events."""

from __future__ import annotations

import gc
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from infertool.channels.event import ChannelEvent
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.watch import panes, rows, snapshot
from infertool.watch.bus import Bus
from infertool.watch.entry import Kind
from infertool.watch.formatting import ASCII, UNICODE, Glyphs
from infertool.watch.state import State, bucket, middle
from tests.watch.samples import NOW, Still, alert, failure, result


def link(state: ConnectionState, reason: str = "", retry_in_s: float | None = None) -> ConnectionEvent:
    return ConnectionEvent(state, "ws://a", 1, reason, retry_in_s)


def text(lines: list[Any]) -> str:
    return "\n".join("".join(piece for piece, _ in line) for line in lines)


def head(state: State, now: float = NOW, width: int = 100) -> str:
    return text(rows.header_lines([state], state, now, width, UNICODE))


def test_events_are_counted_by_what_they_are() -> None:
    state = State("a", 100)
    odd = ChannelEvent("t", "tick", {"n": 1}, NOW)
    renamed = ChannelEvent("t", "done", {"status": "SUCCESS"}, NOW)
    state.take([result(1), result(2), failure(3), alert("slow", "firing"), odd, renamed])
    totals = state.totals
    assert (totals.results, totals.failures, totals.alerts, totals.others) == (3, 1, 1, 1)
    state.work()
    assert [each.kind for each in state.results.all_rows()] == [Kind.RESULT, Kind.OTHER, Kind.RESULT, Kind.RESULT]
    assert [each.kind for each in state.alerts.all_rows()] == [Kind.ALERT, Kind.FAILURE]


def test_an_alert_rule_fires_until_it_is_resolved() -> None:
    state = State("a", 100)
    state.take([alert("slow", "firing", ago=90), alert("slow", "firing", ago=10), alert("dead", "firing")])
    assert list(state.rules) == ["slow", "dead"]
    assert state.rules["slow"].since == NOW - 90
    state.take([alert("slow", "resolved")])
    assert list(state.rules) == ["dead"]
    state.take([alert(f"rule {n}", "firing") for n in range(500)])
    assert len(state.rules) == 100


def test_a_gap_is_a_line_in_both_lists() -> None:
    state = State("a", 100)
    state.take_connection(link(ConnectionState.CONNECTED), NOW)
    state.take([result(1)])
    state.take_connection(link(ConnectionState.LOST, "it said goodbye", 2.0), NOW + 60)
    assert "lost 5s, again in 0s" in head(state, NOW + 65)
    state.take_connection(link(ConnectionState.CONNECTING), NOW + 3000)
    state.take_connection(link(ConnectionState.LOST, "refused"), NOW + 3001)
    state.take_connection(link(ConnectionState.CONNECTED), NOW + 3660)
    state.work()
    for listing in (state.results, state.alerts):
        newest = listing.all_rows()[0]
        assert newest.kind is Kind.GAP
        assert "(1h00m): events sent then are missing" in newest.label
    assert state.totals.gaps == 1


@pytest.mark.parametrize(
    ("count", "complete", "label"),
    [
        (3, True, "public:results: 3 missed broadcasts follow"),
        (3, False, "public:results: 3 missed broadcasts follow; there may have been more before them"),
        (0, True, "public:results: nothing was missed"),
        (0, False, None),  # a hub that was started anew
    ],
)
def test_a_gap_that_the_server_fills_is_a_line_too(count: int, complete: bool, label: str | None) -> None:
    state = State("a", 100)
    state.take([result(1)])
    state.take_missed("public:results", count, NOW, complete=complete)
    state.work()
    lines = [row.label for row in state.results.all_rows() if row.kind is Kind.GAP]
    assert lines == [row.label for row in state.alerts.all_rows() if row.kind is Kind.GAP]
    assert lines == ([label] if label else [])


def test_a_topic_that_is_lost_shows_until_it_is_joined_again() -> None:
    state = State("a", 100)
    state.take_topic("public:alerts", "the channel crashed", NOW)
    assert "public:alerts lost" in head(state)
    state.take_topic("public:alerts", "", NOW + 5)
    assert "public:alerts" not in head(state)
    assert state.totals.gaps == 1


def test_figures_of_the_last_minute() -> None:
    state = State("a", 10_000)
    for second in range(120):
        state.take([result(n, ago=120 - second, processing_ms=float(n)) for n in range(1, 101)])
    state.take([failure(n, ago=0.5) for n in range(500)])
    recent = state.recent(NOW)
    assert recent.success == pytest.approx(60 * 100 / 6500, rel=0.03)
    assert recent.processing.p50 == pytest.approx(50, rel=0.06)
    assert recent.processing.p99 == pytest.approx(99, rel=0.06)
    assert recent.latency.p50 == pytest.approx(500, rel=0.06)
    assert state.rates(3, 10)[:2] == pytest.approx([100, 100])
    assert state.recent(NOW + 61).success is None


@given(st.floats(-1e9, 1e9))
def test_a_latency_is_kept_within_a_few_percent(value: float) -> None:
    assert middle(bucket(value)) == pytest.approx(value, rel=0.03, abs=0.01)


def test_a_clock_that_is_behind_shows() -> None:
    state = State("a", 100)
    state.take([result(n, received_at=NOW + 3.2) for n in range(5)])
    state.work()
    row = text([rows.result_row(state.results.all_rows()[0], rows.fit_columns(100), NOW, UNICODE)])
    assert "-3200 ms" in row
    assert "clocks differ" in head(state)


def test_a_clock_that_is_set_back_or_far_ahead_stops_nothing() -> None:
    state = State("a", 100)
    for at in (NOW, NOW - 7200, NOW + 1e9, NOW):
        state.take([ChannelEvent("t", "new_result", {"status": "SUCCESS"}, at)])
    assert state.totals.results == 4
    head(state)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.sampled_from(["2026-11-25T03:00:00Z", "\x1b[2J", "\u202e", "日本"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = st.sampled_from([
    "event_id", "request_id", "status", "prediction", "processing_ms", "stage", "error", "error_type", "attempts",
    "received_at", "completed_at", "original_payload", "rule", "state", "value", "threshold", "since", "traceparent",
])  # fmt: skip
PREDICTION = st.fixed_dictionaries({}, optional={"class": JSON, "confidence": JSON})
PAYLOAD = st.dictionaries(FIELDS, JSON | PREDICTION | st.sampled_from(["SUCCESS", "FAILED"])) | JSON | st.binary()


@given(
    PAYLOAD, st.text(max_size=10), st.sampled_from(["new_result", "inference_failed", "alert", "\x1b]0;x\x07"]),
    st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 200), st.sampled_from([UNICODE, ASCII]),
)  # fmt: skip
def test_any_event_is_shown_sanitized(
    payload: Any, topic: str, event: str, at: float, width: int, glyphs: Glyphs
) -> None:
    state = State("a", 10)
    state.take([ChannelEvent(topic, event, payload, at)])
    state.work()
    lines = []
    for entry in [*state.results.all_rows(), *state.alerts.all_rows()]:
        lines += [
            rows.result_row(entry, rows.fit_columns(width), NOW, glyphs),
            rows.alert_row(entry, width, NOW, glyphs),
        ]
        folded = panes.detail_lines(entry, NOW, width, glyphs)
        assert all(cell_len(text([line])) <= max(width, 2) for line in folded)
        lines += folded
    lines += [rows.rule_row(rule, width, NOW, glyphs) for rule in state.rules.values()]
    assert all(piece.isprintable() for line in lines for piece, _ in line)
    assert all(piece.isascii() for line in lines for piece, _ in line) or glyphs is UNICODE
    snapshot.document(Bus(state, Still()))


def test_a_failure_shows_its_traceback_line_by_line() -> None:
    state = State("a", 10)
    state.take([failure(1, traceback="model.py:3 in predict\nmodel.py:9 in \x1b[2Jscale"), failure(2, traceback=[7])])
    state.work()
    odd, entry = state.alerts.all_rows()
    shown = [text([line]).strip() for line in panes.detail_lines(entry, NOW, 200, UNICODE)]
    at = shown.index("traceback    model.py:3 in predict")
    assert shown[at + 1] == r"model.py:9 in \x1b[2Jscale"
    assert "traceback  " not in text(panes.detail_lines(odd, NOW, 200, UNICODE))


def test_a_huge_payload_and_a_deep_one() -> None:
    huge = result(1, original_payload={"text": "x" * 5_000_000}, request_id="y" * 5_000_000)
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    state = State("a", 10)
    state.take([huge, result(2, original_payload=deep)])
    state.work()
    newest, large = state.results.all_rows()
    assert "cut here" in text(panes.detail_lines(large, NOW, 80, UNICODE))
    assert len(large.name) == 200
    assert "nested too deep" in text(panes.detail_lines(newest, NOW, 80, UNICODE))


def test_ten_thousand_in_one_second_are_all_counted() -> None:
    state = State("a", 1_000)
    state.take([result(n) for n in range(10_000)])
    state.work()
    assert state.totals.results == 10_000
    assert (state.results.count, state.results.ring.dropped) == (1_000, 9_000)
    assert "10 000 in all" in head(state)


@pytest.mark.long
def test_an_hour_at_200_a_second_in_flat_memory() -> None:
    """Simulated as fast as it goes: 720 000 events, each with a share of failures and alerts."""
    state, process, sizes = State("a", 10_000), psutil.Process(), []
    small = {"status": "SUCCESS", "processing_ms": 3.5, "prediction": {"class": "A", "confidence": 0.5}}
    failed = {"status": "FAILED", "error": "no"}
    for second in range(3_600):
        at = NOW + second
        batch = [ChannelEvent("r", "new_result", {**small, "request_id": f"{second}-{n}"}, at) for n in range(180)]
        state.take([*batch, *[ChannelEvent("a", "inference_failed", failed, at)] * 20])
        state.work()
        if second % 900 == 899:
            gc.collect()
            sizes.append(process.memory_info().rss)
    assert state.totals.events == 720_000
    assert (state.results.count, state.alerts.count) == (10_000, 10_000)
    assert sizes[-1] < sizes[0] * 1.05 + 4 * 1024 * 1024


def test_names_of_buses_and_topics_are_ascii_where_the_terminal_is() -> None:
    state = State("größe\x1b", 100)
    state.topics = {"thème": "gone"}
    shown = text(rows.header_lines([state, state], state, NOW, 200, ASCII))
    assert "[gr\\xf6\\xdfe\\x1b]" in shown
    assert "th\\xe8me lost" in shown
