"""One event in one line, for people. Nothing from an event reaches the terminal raw."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from infertool.feed.arrival import Arrival
from infertool.feed.encoding import encode, text
from infertool.telemetry.logs import clean

WIDEST = 400
_NUMERIC = (int, float)
_FAILURE = ("stage", "error_type", "error", "attempts")


def line(arrival: Arrival) -> str:
    """Return a readable line."""
    where = f"{arrival.source} {arrival.topic}" if arrival.source else arrival.topic
    return clean(f"{clock(arrival.at)} {where} {arrival.event}  {gist(arrival.payload)}"[:WIDEST])[:WIDEST]


def clock(at: float) -> str:
    """Return a wall-clock time (seconds) as local hours, minutes, seconds and milliseconds."""
    return f"{_hours_to_seconds(int(at))}.{int(at % 1 * 1000):03d}"


def gist(payload: Any) -> str:
    """Return what a person wants to know of a payload. Not yet clean."""
    if isinstance(payload, bytes):
        return f"{len(payload)} bytes"
    status = payload.get("status") if isinstance(payload, dict) else None
    if status == "SUCCESS" and isinstance(payload.get("prediction"), dict):
        return f"{_name(payload)}  {_prediction(payload['prediction'])}  {_number(payload.get('processing_ms'), 1)} ms"
    if status == "FAILED":
        stage, kind, error, attempts = map(text, map(payload.get, _FAILURE))
        return f"{_name(payload)}  FAILED {stage}: {kind}: {error}  (attempt {attempts})"
    return encode(payload).decode()


@lru_cache(maxsize=4)
def _hours_to_seconds(at: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _name(payload: Mapping[str, Any]) -> str:
    return text(payload.get("request_id") or payload.get("event_id"))


def _prediction(prediction: Mapping[str, Any]) -> str:
    if "class" not in prediction:
        return encode(prediction).decode()
    return f"{text(prediction['class'])} {_number(prediction.get('confidence'), 3)}"


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, _NUMERIC) else "-"
