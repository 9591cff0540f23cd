"""One event in one line, for people. Nothing from an event reaches the terminal raw."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from infertool.telemetry.logs import clean

WIDEST = 400


def line(topic: str, event: str, payload: Any, *, at: float) -> str:
    """Return a readable line for an event that came at wall-clock time `at` (seconds)."""
    return clean(f"{clock(at)} {topic} {event}  {gist(payload)}")[:WIDEST]


def clock(at: float) -> str:
    """Return a wall-clock time (seconds) as local hours, minutes, seconds and milliseconds."""
    return f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 1000):03d}"


def gist(payload: Any) -> str:
    """Return what a person wants to know of a payload. Not yet clean."""
    match payload:
        case {"status": "SUCCESS", "prediction": dict(prediction)}:
            return f"{_name(payload)}  {_prediction(prediction)}  {_number(payload.get('processing_ms'), 1)} ms"
        case {"status": "FAILED"}:
            what = f"{payload.get('stage')}: {payload.get('error_type')}: {payload.get('error')}"
            return f"{_name(payload)}  FAILED {what}  (attempt {payload.get('attempts')})"
        case bytes():
            return f"{len(payload)} bytes"
        case _:
            return orjson.dumps(payload).decode()


def _name(payload: Mapping[str, Any]) -> str:
    return str(payload.get("request_id") or payload.get("event_id"))


def _prediction(prediction: Mapping[str, Any]) -> str:
    if "class" not in prediction:
        return orjson.dumps(prediction).decode()
    return f"{prediction['class']} {_number(prediction.get('confidence'), 3)}"


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"
