"""Which columns a list of results has at a width, and the cells of an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len

from infertool.watch.entry import Entry, Kind
from infertool.watch.glyphs import Glyphs
from infertool.watch.ink import Ink, Line
from infertool.watch.state import Rule
from infertool.watch.words import bar, clock, fit, ms, span

_GAP = "  "
_NAME_WIDTH = 12
_LABEL_WIDTH = 8
_WIDEST_NAME = 36
_CONFIDENCE_WIDTH = 14
_CONFIDENCE_DIGITS = 6
_UNSURE = 0.5


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Those of the least `rank` stay longest when it gets narrow; `grows` is its share of what is left."""

    title: str
    width: int
    rank: int
    cell: Callable[[Entry, float, Glyphs], tuple[str, Ink]]
    grows: int = 0
    right: bool = False


def _time(entry: Entry, _now: float, _glyphs: Glyphs) -> tuple[str, Ink]:
    return clock(entry.at), Ink.DIM


def _name(entry: Entry, _now: float, _glyphs: Glyphs) -> tuple[str, Ink]:
    return entry.name or entry.event, Ink.PLAIN


def _class(entry: Entry, _now: float, _glyphs: Glyphs) -> tuple[str, Ink]:
    return entry.label, Ink.STRONG if entry.kind is Kind.RESULT else Ink.DIM


def _confidence(entry: Entry, _now: float, _glyphs: Glyphs) -> tuple[str, Ink]:
    return "", Ink.BAR if (entry.confidence or 0.0) >= _UNSURE else Ink.WARN


def _ms(entry: Entry, _now: float, _glyphs: Glyphs) -> tuple[str, Ink]:
    return ("-", Ink.DIM) if entry.processing_ms is None else (ms(entry.processing_ms), Ink.PLAIN)


def _latency(entry: Entry, _now: float, _glyphs: Glyphs) -> tuple[str, Ink]:
    latency = entry.latency_s
    if latency is None:
        return "-", Ink.DIM
    return ms(latency * 1000), Ink.WARN if latency < 0 else Ink.PLAIN


def _age(entry: Entry, now: float, _glyphs: Glyphs) -> tuple[str, Ink]:
    return span(max(now - entry.at, 0.0)), Ink.DIM


CONFIDENCE = Column("confidence", _CONFIDENCE_WIDTH, 0, _confidence, grows=1)
COLUMNS = (
    Column("time", 8, 3, _time),
    Column("request", _NAME_WIDTH, 0, _name, grows=3),
    Column("class", _LABEL_WIDTH, 0, _class, grows=2),
    CONFIDENCE,
    Column("model", 8, 1, _ms, right=True),
    Column("end to end", 10, 2, _latency, right=True),
    Column("age", 6, 1, _age, right=True),
)


def layout(width: int) -> list[tuple[Column, int]]:
    """Return the columns that fit into `width` cells, each with its width."""
    columns = [*COLUMNS]
    while len(columns) > 1 and _least(columns) > width:
        columns.remove(max(columns, key=lambda column: column.rank))
    left = max(width - _least(columns), 0)
    shares = sum(column.grows for column in columns) or 1
    return [(column, column.width + left * column.grows // shares) for column in columns]


def heading(columns: list[tuple[Column, int]], glyphs: Glyphs) -> Line:
    """Return the line of titles."""
    cells = [_aligned(column.title, width, glyphs, right=column.right) for column, width in columns]
    return [("  " + _GAP.join(cells), Ink.TITLE)]


def row(entry: Entry, columns: list[tuple[Column, int]], now: float, glyphs: Glyphs) -> Line:
    """Return the cells of an entry, without the cursor's sign."""
    if entry.kind is Kind.GAP:
        return [(f"{glyphs.gap * 3} {entry.label} {glyphs.gap * 200}", Ink.WARN)]
    line: Line = []
    for column, width in columns:
        if column is CONFIDENCE:
            line += _bar(entry, width, glyphs)
        else:
            value, ink = column.cell(entry, now, glyphs)
            line.append((_aligned(value, width, glyphs, right=column.right), ink))
        line.append((_GAP, Ink.PLAIN))
    return line


def alert_row(entry: Entry, width: int, now: float, glyphs: Glyphs) -> Line:
    """Return the line of a failure or of an alert rule's change, without the cursor's sign."""
    if entry.kind is Kind.GAP:
        return row(entry, [], now, glyphs)
    age = span(max(now - entry.at, 0.0)).rjust(6)
    tried = f"  try {entry.attempts}" if entry.attempts not in {"", "1"} else ""
    sign, ink = (glyphs.failure, Ink.FAIL) if entry.kind is Kind.FAILURE else (glyphs.firing, Ink.WARN)
    name = fit(entry.name or "-", _alert_name_width(width), glyphs)
    room = max(width - len(sign) - len(tried) - len(age) - 6 - cell_len(name), 0)
    return [
        (f"{sign} ", ink),
        (name, Ink.PLAIN),
        (_GAP, Ink.PLAIN),
        (fit(entry.label, room, glyphs), ink),
        (fit(tried, len(tried), glyphs), Ink.DIM),
        (f" {age}", Ink.DIM),
    ]


def rule_row(rule: Rule, width: int, now: float, glyphs: Glyphs) -> Line:
    """Return the line of an alert rule that fires."""
    age = span(max(now - rule.since, 0.0)).rjust(6)
    name = fit(rule.name, _alert_name_width(width), glyphs)
    room = max(width - len(glyphs.firing) - len(age) - 6 - cell_len(name), 0)
    return [(f"{glyphs.firing} {name}  {fit(rule.label, room, glyphs)} {age}", Ink.WARN)]


def _alert_name_width(width: int) -> int:
    return min(max(width // 5, _NAME_WIDTH), _WIDEST_NAME)


def _bar(entry: Entry, width: int, glyphs: Glyphs) -> Line:
    if entry.confidence is None:
        return [("-".ljust(width), Ink.DIM)]
    _, ink = CONFIDENCE.cell(entry, 0.0, glyphs)
    full, rest = bar(entry.confidence, width - _CONFIDENCE_DIGITS, glyphs)
    return [(full, ink), (rest, Ink.EMPTY), (fit(f" {entry.confidence:.3f}", _CONFIDENCE_DIGITS, glyphs), Ink.PLAIN)]


def _aligned(text: str, width: int, glyphs: Glyphs, *, right: bool) -> str:
    return fit(text.rjust(width) if right else text, width, glyphs)


def _least(columns: list[Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * len(columns) + len("  ")
