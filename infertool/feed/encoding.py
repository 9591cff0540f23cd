"""Arrivals and their parts as JSON."""

from __future__ import annotations

from typing import Any

import orjson

from infertool import json_text
from infertool.feed.arrival import Arrival

TOO_DEEP = "(nested too deep)"
# orjson reads 1024 levels and writes 254. What is nested deeper than this loses what is below.
_DEEPEST = 200


def document(arrival: Arrival) -> dict[str, Any]:
    """Return the arrival as `tail -o jsonl` shows it; `source` only where there is one."""
    payload = orjson.Fragment(arrival.text) if arrival.text else arrival.payload
    shown = {"topic": arrival.topic, "event": arrival.event, "payload": payload, "at": arrival.at}
    if arrival.source:
        shown["source"] = arrival.source
    return shown


def payload_text(arrival: Arrival) -> bytes:
    """Return the payload as JSON: as it was written, where that is known."""
    return arrival.text or encode(arrival.payload)


def encode(value: Any) -> bytes:
    """Return JSON. Bytes become a string, each byte a character of the same number."""
    try:
        return orjson.dumps(value, default=_plain)
    except orjson.JSONEncodeError:
        return orjson.dumps(json_text.exact(_cut(value, _DEEPEST)), default=_plain)


def text(value: Any) -> str:
    """Return a string as it is, anything else as JSON. Not yet clean."""
    return value if isinstance(value, str) else encode(value).decode()


def fixed(value: float, digits: int) -> str:
    """Return a number with so many digits after its point. A whole number may be past any float."""
    if isinstance(value, int):
        return f"{value}.{'0' * digits}" if digits else f"{value}"
    return f"{value:.{digits}f}"


def _plain(value: bytes) -> str:
    return value.decode("latin-1")


def _cut(value: Any, levels: int) -> Any:
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return TOO_DEEP
    if isinstance(value, dict):
        return {key: _cut(each, levels - 1) for key, each in value.items()}
    return [_cut(each, levels - 1) for each in value]
