"""One event in one line, for people. Nothing from an event reaches the terminal raw."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

WIDEST = 400


def clean(text: str) -> str:
    """Return `text` with control characters (ANSI escapes, bidirectional overrides, …) written as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def line(topic: str, event: str, payload: Any, *, at: float) -> str:
    """Return a readable line for an event that came at wall-clock time `at` (seconds)."""
    clock = f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 1000):03d}"
    return clean(f"{clock} {topic} {event}  {_gist(payload)}")[:WIDEST]


def _gist(payload: Any) -> str:
    match payload:
        case {"status": "SUCCESS", "prediction": dict(prediction)}:
            return f"{_name(payload)}  {_prediction(prediction)}  {_number(payload.get('processing_ms'), ' ms')}"
        case {"status": "FAILED"}:
            what = f"{payload.get('stage')}: {payload.get('error_type')}: {payload.get('error')}"
            return f"{_name(payload)}  FAILED {what}  ({payload.get('attempts')} attempts)"
        case bytes():
            return f"{len(payload)} bytes"
        case _:
            return orjson.dumps(payload).decode()


def _name(payload: Mapping[str, Any]) -> str:
    return str(payload.get("request_id") or payload.get("event_id"))


def _prediction(prediction: Mapping[str, Any]) -> str:
    if "class" not in prediction:
        return orjson.dumps(prediction).decode()
    confidence = prediction.get("confidence")
    return f"{prediction['class']} {_number(confidence, '')}"


def _number(value: Any, unit: str) -> str:
    return f"{value:.4g}{unit}" if isinstance(value, int | float) else f"-{unit}"
