"""One event in one line, for people. Nothing from an event reaches the terminal raw."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from infertool.feed.arrival import Arrival
from infertool.feed.encoding import fixed, payload_text, text
from infertool.feed.paths import parse_path
from infertool.printable import clean

WIDEST = 400
_NUMERIC = (int, float)
_PREDICTION = parse_path("prediction")
_FAILURE = ("stage", "error_type", "error", "attempts")


def line(arrival: Arrival) -> str:
    """Return a readable line."""
    where = f"{arrival.source} {arrival.topic}" if arrival.source else arrival.topic
    return clean(f"{clock(arrival.at)} {where} {arrival.event}  {gist(arrival)}"[:WIDEST])[:WIDEST]


def clock(at: float) -> str:
    """Return a wall-clock time (seconds) as local hours, minutes, seconds and milliseconds."""
    return f"{_hours_to_seconds(int(at))}.{int(at % 1 * 1000):03d}"


def gist(arrival: Arrival) -> str:
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


def _prediction(arrival: Arrival) -> str:
    prediction = arrival.payload["prediction"]
    if "class" not in prediction:
        return str(_PREDICTION.shown(arrival))
    return f"{text(prediction['class'])} {_number(prediction.get('confidence'), 3)}"


def _number(value: Any, digits: int) -> str:
    return fixed(value, digits) if isinstance(value, _NUMERIC) else "-"
