"""Lines by a template: `{request_id} {prediction.class} {prediction.confidence:.2f}`.

Dotted paths and nothing else: no attributes, no calls. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rich.cells import cell_len, set_cell_size

from infertool.channels.event import ChannelEvent, fixed, payload_text, text
from infertool.channels.paths import MISSING, Path, parse_path
from infertool.errors import UsageError
from infertool.text.sanitize import clean

# Terminal cells of a column at most; the last one may take more.
WIDEST_COLUMN = 40
LAST_WIDEST = 200
_GAP = "  "


class Columns:
    """Makes a line an event. A column grows with what it holds; the names stand above the first line."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._widths = [0] * len(paths)
        self._headed = False

    def lines(self, arrivals: Sequence[ChannelEvent]) -> list[str]:
        """Return the lines."""
        rows = [[_shown(path, arrival) for path in self._paths] for arrival in arrivals]
        if not self._headed:
            self._headed = True
            rows.insert(0, [clean(path.text) for path in self._paths])
        for row in rows:
            self._widths = [
                min(WIDEST_COLUMN, max(wide, cell_len(each))) for wide, each in zip(self._widths, row, strict=True)
            ]
        return [self._line(row) for row in rows]

    def _line(self, row: Sequence[str]) -> str:
        *padded, last = row
        cells = [_fit(each, width) for each, width in zip(padded, self._widths, strict=False)]
        return _GAP.join([*cells, _fit(last, min(LAST_WIDEST, cell_len(last)))])


def _shown(path: Path, arrival: ChannelEvent) -> str:
    found = path.shown(arrival)
    # Cut before it is cleaned and measured: it may have millions of characters.
    return NOTHING if found is MISSING else clean(found[: LAST_WIDEST + 1])


def _fit(cell: str, width: int) -> str:
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    return set_cell_size(cell, width - 1) + "…"


WIDEST = 400
_NUMERIC = (int, float)
_PREDICTION = parse_path("prediction")
_FAILURE = ("stage", "error_type", "error", "attempts")


def line(arrival: ChannelEvent) -> str:
    """Return a readable line."""
    where = f"{arrival.source} {arrival.topic}" if arrival.source else arrival.topic
    return clean(f"{clock(arrival.at)} {where} {arrival.event}  {gist(arrival)}"[:WIDEST])[:WIDEST]


def clock(at: float) -> str:
    """Return a wall-clock time (seconds) as local hours, minutes, seconds and milliseconds."""
    return f"{_hours_to_seconds(int(at))}.{int(at % 1 * 1000):03d}"


def gist(arrival: ChannelEvent) -> str:
    """Return what a person wants to know of a payload. Not yet clean."""
    payload = arrival.payload
    if isinstance(payload, bytes):
        return f"{len(payload)} bytes"
    status = payload.get("status") if isinstance(payload, dict) else None
    if status == "SUCCESS" and isinstance(payload.get("prediction"), dict):
        return f"{_name(payload)}  {_prediction(arrival)}  {_number(payload.get('processing_ms'), 1)} ms"
    if status == "FAILED":
        stage, kind, error, attempts = map(text, map(payload.get, _FAILURE))
        return f"{_name(payload)}  FAILED {stage}: {kind}: {error}  (attempt {attempts})"
    return payload_text(arrival).decode()


@lru_cache(maxsize=4)
def _hours_to_seconds(at: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _name(payload: Mapping[str, Any]) -> str:
    return text(payload.get("request_id") or payload.get("event_id"))


def _prediction(arrival: ChannelEvent) -> str:
    prediction = arrival.payload["prediction"]
    if "class" not in prediction:
        return str(_PREDICTION.shown(arrival))
    return f"{text(prediction['class'])} {_number(prediction.get('confidence'), 3)}"


def _number(value: Any, digits: int) -> str:
    return fixed(value, digits) if isinstance(value, _NUMERIC) else "-"


NOTHING = "-"
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+")
_DIGITS = re.compile(r"\.(\d)f")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place for a value; a number gets `digits` after its point, if given."""

    path: Path
    digits: int | None

    def fill(self, arrival: ChannelEvent) -> str:
        value = self.path.of(arrival)
        if value is MISSING:
            return NOTHING
        if self.digits is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return fixed(value, self.digits)
        return clean(str(self.path.shown(arrival)))


class Template:
    """A template. Raises `UsageError` for one that cannot be understood."""

    def __init__(self, template: str) -> None:
        self._parts: list[str | _Slot] = []
        end = 0
        for match in _PART.finditer(template):
            if match.start() != end:
                break
            end = match.end()
            self._parts.append(match[0][:1] if match[1] is None and match[0] in {"{{", "}}"} else _part(match))
        if end != len(template):
            what = f"the {template[end]} at character {end + 1} of the format has no partner"
            raise UsageError(what, advice="write {{ or }} for a brace itself")

    def line(self, arrival: ChannelEvent) -> str:
        """Return the line of `arrival`; what it lacks is `-`, and nothing of it reaches the terminal raw."""
        return "".join([part if isinstance(part, str) else part.fill(arrival) for part in self._parts])


def _part(match: re.Match[str]) -> str | _Slot:
    inner: str | None = match[1]
    if inner is None:
        return match[0]
    name, colon, form = inner.partition(":")
    digits = _DIGITS.fullmatch(form)
    if colon and not digits:
        raise UsageError(f"{form!r} is no number format", advice="write for example {prediction.confidence:.2f}")
    return _Slot(parse_path(name.strip()), int(digits[1]) if digits else None)
