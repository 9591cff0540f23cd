"""The header as styled lines: connections, rates, latencies, queue depths."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from infertool.net.connection_state import ConnectionState
from infertool.text.sanitize import clean
from infertool.watch.formatting import Glyphs, Line, TextStyle, clock, count, fit, ms, percent, rate, span, spark
from infertool.watch.seconds import Spread
from infertool.watch.state import State

HEIGHT = 3
# Time span of a cell of the sparkline, in seconds, and the maximum of cells (five minutes).
CELL_S = 5
_MOST_CELLS = 60
_PEAK_WIDTH = 11
_STATES = {
    ConnectionState.CONNECTING: "connecting",
    ConnectionState.CONNECTED: "connected",
    ConnectionState.LOST: "lost",
    ConnectionState.CLOSED: "ended",
}


def lines(states: Sequence[State], shown: State, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """Return the lines for `states`, with the figures of `shown`."""
    right: Line = [_mode(shown, glyphs), (f"  {clock(now)} ", TextStyle.DIM)]
    connections: Line = []
    for state in states:
        connections += _bus_line(state, now, glyphs, marked=len(states) > 1 and state is shown)
    return [_both(connections, right, width), _traffic(shown, now, width, glyphs), _times(shown, now)]


def _mode(state: State, glyphs: Glyphs) -> tuple[str, TextStyle]:
    if state.results.paused:
        waiting = state.results.waiting + state.alerts.waiting
        return f"{glyphs.paused} PAUSED, {count(waiting)} waiting", TextStyle.WARN
    if state.results.follow:
        return f"{glyphs.live} live", TextStyle.OK
    return f"{glyphs.live} live, list held", TextStyle.ACCENT


def _bus_line(state: State, now: float, glyphs: Glyphs, *, marked: bool) -> Line:
    up = state.connection.state is ConnectionState.CONNECTED or state.recording
    line: Line = [
        (f" {glyphs.up if up else glyphs.down} ", TextStyle.OK if up else TextStyle.FAIL),
        (f"[{clean(state.name)}]" if marked else clean(state.name), TextStyle.STRONG),
        (f" {_connection(state, now)} ", TextStyle.PLAIN if up else TextStyle.WARN),
    ]
    line += [(f" {glyphs.failure} {clean(topic)} lost ", TextStyle.FAIL) for topic in state.topics]
    return line


def _connection(state: State, now: float) -> str:
    if state.recording:
        return "played to its end" if state.ended else "playing"
    connection = state.connection
    text = _STATES[connection.state]
    if connection.since is not None:
        text += f" {span(max(now - connection.since, 0))}"
    if connection.retry_at is not None and connection.state is ConnectionState.LOST:
        text += f", again in {span(max(connection.retry_at - now, 0))}"
    return text


def _traffic(state: State, now: float, width: int, glyphs: Glyphs) -> Line:
    recent = state.recent(now)
    head = f" {rate(recent.rate):>6} events/s  "
    totals = state.totals
    success = f"  {glyphs.success} {percent(recent.success)} ok"
    failed = f"  {glyphs.failure} {percent(None if recent.success is None else 1 - recent.success)} failed"
    tail = f"  {count(totals.events)} in all "
    cells = min(width - len(head) - len(success) - len(failed) - len(tail) - _PEAK_WIDTH, _MOST_CELLS)
    rates = state.rates(max(cells, 0), CELL_S)
    return [
        (head, TextStyle.STRONG),
        (spark(rates, glyphs), TextStyle.SPARK),
        (fit(f" peak {rate(max([recent.rate, *rates]))}", _PEAK_WIDTH, glyphs), TextStyle.DIM),
        (success, TextStyle.OK),
        (failed, TextStyle.FAIL if recent.success is not None and recent.success < 1 else TextStyle.DIM),
        (tail, TextStyle.DIM),
    ]


def _times(state: State, now: float) -> Line:
    recent = state.recent(now)
    depths = state.depths
    line: Line = [("  p50/p99", TextStyle.DIM), *_spread("  model ", recent.processing)]
    line += _spread("  end to end ", recent.latency)
    if depths.queue is not None:
        line += [("  queue ", TextStyle.DIM), (count(depths.queue), TextStyle.STRONG)]
    if depths.dlq is not None:
        line += [("  dlq ", TextStyle.DIM), (count(depths.dlq), TextStyle.FAIL if depths.dlq else TextStyle.STRONG)]
    return line


def _spread(name: str, spread: Spread) -> Line:
    behind = spread.p50 is not None and spread.p50 < 0
    (low, unit), (high, high_unit) = ms(spread.p50).rsplit(" ", 1), ms(spread.p99).rsplit(" ", 1)
    return [
        (name, TextStyle.DIM),
        (low if unit == high_unit else f"{low} {unit}", TextStyle.WARN if behind else TextStyle.STRONG),
        ("/", TextStyle.DIM),
        (f"{high} {high_unit}", TextStyle.STRONG),
        (" clocks differ" if behind else "", TextStyle.WARN),
    ]


def _both(left: Line, right: Line, width: int) -> Line:
    """Return `left`, and `right` at the right edge; `left` is cut if both do not fit."""
    room = width - sum(cell_len(text) for text, _ in right)
    line: Line = []
    for text, style in left:
        if cell_len(text) > room:
            break
        room -= cell_len(text)
        line.append((text, style))
    return [*line, (" " * max(room, 0), TextStyle.PLAIN), *right]
