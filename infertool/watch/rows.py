"""The header and the rows of the lists as styled text: columns that fit a width, and the cells of an entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from infertool.net.connection_state import ConnectionState
from infertool.text.sanitize import clean, right
from infertool.watch.consumer_stats import consumer_lines
from infertool.watch.entry import Entry, Kind
from infertool.watch.formatting import Glyphs, Line, TextStyle, bar, clock, count, fit, ms, percent, rate, span, spark
from infertool.watch.state import Rule, Spread, State

_GAP = "  "
_NAME_WIDTH = 12
_WIDEST_NAME = 36
_DIGITS_WIDTH = 6
_WIDEST_TRY = 12
_UNSURE = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """The context of a cell: its width, the wall-clock time in seconds, the glyphs."""

    width: int
    now: float
    glyphs: Glyphs

    def left(self, text: str) -> str:
        """Return `text` left-aligned in the cell's width."""
        return fit(text, self.width, self.glyphs)

    def right(self, text: str) -> str:
        """Return `text` right-aligned in the cell's width."""
        return fit(right(self.glyphs.safe(clean(text)), self.width), self.width, self.glyphs)


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Columns of the highest `rank` are hidden first. `grows` is the column's share of spare width."""

    title: str
    width: int
    rank: int
    cell: Callable[[Entry, Place], Line]
    grows: int = 0
    right: bool = False


def _time(entry: Entry, place: Place) -> Line:
    return [(place.left(clock(entry.at)), TextStyle.DIM)]


def _name(entry: Entry, place: Place) -> Line:
    return [(place.left(entry.name or entry.event), TextStyle.PLAIN)]


def _class(entry: Entry, place: Place) -> Line:
    return [(place.left(entry.label), TextStyle.STRONG if entry.kind is Kind.RESULT else TextStyle.DIM)]


def _confidence(entry: Entry, place: Place) -> Line:
    if entry.confidence is None:
        return [(place.left("-"), TextStyle.DIM)]
    full, rest = bar(entry.confidence, place.width - _DIGITS_WIDTH, place.glyphs)
    figure = fit(f" {entry.confidence:.3f}", _DIGITS_WIDTH, place.glyphs)
    return [
        (full, TextStyle.BAR if entry.confidence >= _UNSURE else TextStyle.LOW),
        (rest, TextStyle.EMPTY),
        (figure, TextStyle.PLAIN),
    ]


def _model(entry: Entry, place: Place) -> Line:
    return [(place.right("-" if entry.processing_ms is None else ms(entry.processing_ms)), TextStyle.PLAIN)]


def _latency(entry: Entry, place: Place) -> Line:
    latency = entry.latency_s
    if latency is None:
        return [(place.right("-"), TextStyle.DIM)]
    return [(place.right(ms(latency * 1000)), TextStyle.WARN if latency < 0 else TextStyle.PLAIN)]


def _age(entry: Entry, place: Place) -> Line:
    return [(place.right(span(max(place.now - entry.at, 0.0))), TextStyle.DIM)]


COLUMNS = (
    Column("time", 8, 3, _time),
    Column("request", _NAME_WIDTH, 0, _name, grows=3),
    Column("class", 8, 0, _class, grows=2),
    Column("confidence", 14, 0, _confidence, grows=1),
    Column("model", 8, 1, _model, right=True),
    Column("end to end", 10, 2, _latency, right=True),
    Column("age", 6, 1, _age, right=True),
)


def fit_columns(width: int) -> list[tuple[Column, int]]:
    """Return the columns that fit `width` cells, each with its width."""
    columns = [*COLUMNS]
    while len(columns) > 1 and _least(columns) > width:
        columns.remove(max(columns, key=lambda column: column.rank))
    left = max(width - _least(columns), 0)
    shares = sum(column.grows for column in columns) or 1
    return [(column, column.width + left * column.grows // shares) for column in columns]


def column_titles(columns: list[tuple[Column, int]], glyphs: Glyphs) -> Line:
    """Return the line of column titles."""
    places = [(column, Place(width, 0.0, glyphs)) for column, width in columns]
    cells = [place.right(column.title) if column.right else place.left(column.title) for column, place in places]
    return [("  " + _GAP.join(cells), TextStyle.TITLE)]


def result_row(entry: Entry, columns: list[tuple[Column, int]], now: float, glyphs: Glyphs) -> Line:
    """Return the cells of an entry, without the cursor."""
    if entry.kind is Kind.GAP:
        return [(glyphs.safe(clean(f"{glyphs.gap * 3} {entry.label} {glyphs.gap * 200}")), TextStyle.WARN)]
    line: Line = []
    for column, width in columns:
        line += [*column.cell(entry, Place(width, now, glyphs)), (_GAP, TextStyle.PLAIN)]
    return line


def alert_row(entry: Entry, width: int, now: float, glyphs: Glyphs) -> Line:
    """Return the line of a failure or an alert, without the cursor."""
    if entry.kind is Kind.GAP:
        return result_row(entry, [], now, glyphs)
    age = right(span(max(now - entry.at, 0.0)), 6)
    tried = glyphs.safe(clean(f"  try {entry.attempts}")) if entry.attempts not in {"", "1"} else ""
    tried = fit(tried, min(cell_len(tried), _WIDEST_TRY), glyphs)
    sign, style = (glyphs.failure, TextStyle.FAIL) if entry.kind is Kind.FAILURE else (glyphs.firing, TextStyle.WARN)
    name = fit(entry.name or "-", _alert_name_width(width), glyphs)
    room = max(width - len(sign) - cell_len(tried) - len(age) - 6 - cell_len(name), 0)
    return [
        (f"{sign} ", style),
        (name, TextStyle.PLAIN),
        (_GAP, TextStyle.PLAIN),
        (fit(entry.label, room, glyphs), style),
        (tried, TextStyle.DIM),
        (f" {age}", TextStyle.DIM),
    ]


def rule_row(rule: Rule, width: int, now: float, glyphs: Glyphs) -> Line:
    """Return the line of a firing alert rule."""
    age = right(span(max(now - rule.since, 0.0)), 6)
    name = fit(rule.name, _alert_name_width(width), glyphs)
    room = max(width - len(glyphs.firing) - len(age) - 6 - cell_len(name), 0)
    return [(f"{glyphs.firing} {name}  {fit(rule.label, room, glyphs)} {age}", TextStyle.WARN)]


def _alert_name_width(width: int) -> int:
    return min(max(width // 5, _NAME_WIDTH), _WIDEST_NAME)


def _least(columns: list[Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * len(columns) + len("  ")


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


def header_lines(states: Sequence[State], shown: State, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """Return the lines for `states`, with the figures of `shown`."""
    right: Line = [_mode(shown, glyphs), (f"  {clock(now)} ", TextStyle.DIM)]
    connections: Line = []
    for state in states:
        connections += _bus_line(state, now, glyphs, marked=len(states) > 1 and state is shown)
    lines = [_both(connections, right, width), _traffic(shown, now, width, glyphs), _times(shown, now)]
    return lines + (consumer_lines(shown.consumer, glyphs) if shown.consumer else [])


def _mode(state: State, glyphs: Glyphs) -> tuple[str, TextStyle]:
    if state.results.paused:
        waiting = state.results.waiting + state.alerts.waiting
        return f"{glyphs.paused} PAUSED, {count(waiting)} waiting", TextStyle.WARN
    if state.results.follow:
        return f"{glyphs.live} live", TextStyle.OK
    return f"{glyphs.live} live, list held", TextStyle.ACCENT


def _bus_line(state: State, now: float, glyphs: Glyphs, *, marked: bool) -> Line:
    up = state.connection.state is ConnectionState.CONNECTED or state.recording
    name = glyphs.safe(clean(state.name))
    line: Line = [
        (f" {glyphs.up if up else glyphs.down} ", TextStyle.OK if up else TextStyle.FAIL),
        (f"[{name}]" if marked else name, TextStyle.STRONG),
        (f" {_connection(state, now)} ", TextStyle.PLAIN if up else TextStyle.WARN),
    ]
    lost = [glyphs.safe(clean(topic)) for topic in state.topics]
    line += [(f" {glyphs.failure} {topic} lost ", TextStyle.FAIL) for topic in lost]
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
        name = "  queue " if depths.lag_s is None else "  lag "
        line += [(name, TextStyle.DIM), (count(depths.queue), TextStyle.STRONG)]
        if depths.lag_s is not None:
            line.append((f" {span(depths.lag_s)}", TextStyle.STRONG))
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
