"""Dotted paths into an event: `prediction.class`, `features[0]`, `payload.topic`.

As in filters, fields of the payload stand at the top level; beside them stand `payload`, `topic`, `event`, `at` and
`source`, which win over fields of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from infertool.channels.event import ChannelEvent, encode, payload_text
from infertool.errors import UsageError
from infertool.text import json_text

_PATH = re.compile(r"[^.\[\]{}\s]+(?:\[\d{1,9}\])*(?:\.[^.\[\]{}\s]+(?:\[\d{1,9}\])*)*")
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_BESIDE: dict[str, Callable[[ChannelEvent], Any]] = {
    "payload": lambda arrival: arrival.payload,
    "topic": lambda arrival: arrival.topic,
    "event": lambda arrival: arrival.event,
    "at": lambda arrival: arrival.at,
    "source": lambda arrival: arrival.source,
}


class Missing(Enum):
    """What a path finds where there is nothing; null is something."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Path:
    """A path, as typed and in steps: names, and places in a list."""

    text: str
    steps: tuple[str | int, ...]

    def of(self, arrival: ChannelEvent) -> Any:
        """Return what is there in `arrival`, or `MISSING`."""
        first, *rest = self.steps
        beside = _BESIDE.get(str(first))
        value = beside(arrival) if beside else _step(arrival.payload, first)
        for step in rest:
            value = _step(value, step)
        return value

    def json(self, arrival: ChannelEvent) -> bytes | Missing:
        """Return what is there as JSON, in the arrival's own text where that is known."""
        value = self.of(arrival)
        if isinstance(value, Missing):
            return value
        first, *rest = self.steps
        inside = rest if first == "payload" else () if first in _BESIDE else self.steps
        found = json_text.find(arrival.text, inside) if arrival.text and inside else None
        if first == "payload" and not rest:
            return payload_text(arrival)
        return encode(value) if found is None else found

    def shown(self, arrival: ChannelEvent) -> str | Missing:
        """Return a string as it is, anything else as JSON. Not yet clean."""
        value = self.of(arrival)
        if isinstance(value, str | Missing):
            return value
        found = self.json(arrival)
        return found if isinstance(found, Missing) else found.decode()


def parse_path(text: str) -> Path:
    """Return the path in `text`. Raises `UsageError`."""
    if not _PATH.fullmatch(text):
        advice = "write for example request_id, prediction.class or features[0]"
        raise UsageError(f"{text!r} is no path to a field", advice=advice)
    return Path(text, tuple(int(place) if place else name for place, name in _STEP.findall(text)))


def _step(value: Any, step: str | int) -> Any:
    if isinstance(step, str):
        return value.get(step, MISSING) if isinstance(value, dict) else MISSING
    return value[step] if isinstance(value, list) and step < len(value) else MISSING
