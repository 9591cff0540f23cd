"""Channel events as lines of text: a readable line, columns of fields, or a template."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rich.cells import cell_len, set_cell_size

from infertool.channels.event import MISSING, ChannelEvent, Path, fixed, parse_path, payload_text, text
from infertool.errors import UsageError
from infertool.telemetry.trace_context import trace_id_of
from infertool.text.sanitize import clean

# Maximum widths in terminal cells: of a column, of the last column; of a line in characters.
_MAX_COLUMN = 40
_MAX_LAST_COLUMN = 200
_GAP = "  "
_MAX_LINE = 400
_NUMERIC = (int, float)
_PREDICTION = parse_path("prediction")
_FAILURE = ("stage", "error_type", "error", "attempts")
_ALERT = "alert"
_RULE = ("rule", "state", "severity", "value", "threshold", "summary")
NOTHING = "-"
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+")
_DIGITS = re.compile(r"\.(\d)f")


class Columns:
    """A line for each event, a column for each field, after a header. Columns grow with their values."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._widths = [0] * len(paths)
        self._headed = False

    def lines(self, events: Sequence[ChannelEvent]) -> list[str]:
        """Return the lines."""
        rows = [[_shown(path, event) for path in self._paths] for event in events]
        if not self._headed:
            self._headed = True
            rows.insert(0, [clean(path.text) for path in self._paths])
        for row in rows:
            self._widths = [
                min(_MAX_COLUMN, max(wide, cell_len(each))) for wide, each in zip(self._widths, row, strict=True)
            ]
        return [self._line(row) for row in rows]

    def _line(self, row: Sequence[str]) -> str:
        *padded, last = row
        cells = [_fit(each, width) for each, width in zip(padded, self._widths, strict=False)]
        return _GAP.join([*cells, _fit(last, min(_MAX_LAST_COLUMN, cell_len(last)))])


def _shown(path: Path, event: ChannelEvent) -> str:
    found = path.shown(event)
    # Cut before it is cleaned and measured: the value may have millions of characters.
    return NOTHING if found is MISSING else clean(found[: _MAX_LAST_COLUMN + 1])


def _fit(cell: str, width: int) -> str:
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    return set_cell_size(cell, width - 1) + "…"


def line(event: ChannelEvent) -> str:
    """Return an event as a readable line."""
    where = f"{event.source} {event.topic}" if event.source else event.topic
    trace_id = trace_id_of(event.payload)
    trace = f"  trace {trace_id}" if trace_id else ""
    head = f"{clock(event.at)} {where} {event.event}  {gist(event)}"[: _MAX_LINE - len(trace)]
    return clean(head + trace)[:_MAX_LINE]


def clock(at: float) -> str:
    """Return a wall-clock time (seconds) as local time with milliseconds."""
    return f"{_hours_to_seconds(int(at))}.{int(at % 1 * 1000):03d}"


def gist(event: ChannelEvent) -> str:
    """Return the gist of a payload: result, failure, alert, or the payload itself. Not yet cleaned."""
    payload = event.payload
    if isinstance(payload, bytes):
        return f"{len(payload)} bytes"
    status = payload.get("status") if isinstance(payload, dict) else None
    if status == "SUCCESS" and isinstance(payload.get("prediction"), dict):
        return f"{_name(payload)}  {_prediction(event)}  {_number(payload.get('processing_ms'), 1)} ms"
    if status == "FAILED":
        stage, kind, error, attempts = map(text, map(payload.get, _FAILURE))
        return f"{_name(payload)}  FAILED {stage}: {kind}: {error}  (attempt {attempts})"
    if event.event == _ALERT and isinstance(payload, dict) and payload.get("rule"):
        rule, state, severity, value, threshold, summary = (text(payload.get(name, "")) for name in _RULE)
        return f"{rule}  {state.upper()} {severity}: {summary or f'{value} (threshold {threshold})'}"
    return payload_text(event).decode()


@lru_cache(maxsize=4)
def _hours_to_seconds(at: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _name(payload: Mapping[str, Any]) -> str:
    return text(payload.get("request_id") or payload.get("event_id"))


def _prediction(event: ChannelEvent) -> str:
    prediction = event.payload["prediction"]
    if "class" not in prediction:
        return str(_PREDICTION.shown(event))
    return f"{text(prediction['class'])} {_number(prediction.get('confidence'), 3)}"


def _number(value: Any, digits: int) -> str:
    return fixed(value, digits) if isinstance(value, _NUMERIC) else "-"


@dataclass(frozen=True, slots=True)
class _Slot:
    """A placeholder for a field. A number is printed with `digits` decimal places, if given."""

    path: Path
    digits: int | None

    def fill(self, event: ChannelEvent) -> str:
        value = self.path.of(event)
        if value is MISSING:
            return NOTHING
        if self.digits is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return fixed(value, self.digits)
        return clean(str(self.path.shown(event)))


class Template:
    """A template such as `{request_id} {prediction.confidence:.2f}`. Raises `UsageError` for an invalid one.

    Placeholders are dotted paths, without attributes or calls. `{{` and `}}` are braces.
    """

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

    def line(self, event: ChannelEvent) -> str:
        """Return the line of an event, escaped for a terminal. A missing field is `-`."""
        return "".join([part if isinstance(part, str) else part.fill(event) for part in self._parts])


def _part(match: re.Match[str]) -> str | _Slot:
    inner: str | None = match[1]
    if inner is None:
        return match[0]
    name, colon, form = inner.partition(":")
    digits = _DIGITS.fullmatch(form)
    if colon and not digits:
        raise UsageError(f"{form!r} is no number format", advice="write for example {prediction.confidence:.2f}")
    return _Slot(parse_path(name.strip()), int(digits[1]) if digits else None)
