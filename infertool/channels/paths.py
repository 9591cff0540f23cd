"""Dotted paths into an event: `prediction.class`, `features[0]`, `payload.topic`.

As in filters, the payload's fields are at the top level, next to `payload`, `topic`, `event`, `at` and `source`, which
take precedence over fields of the same name.
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
    "payload": lambda event: event.payload,
    "topic": lambda event: event.topic,
    "event": lambda event: event.event,
    "at": lambda event: event.at,
    "source": lambda event: event.source,
}


class Missing(Enum):
    """The result of a path that leads to no value. A null is a value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Path:
    """A path: its text, and its steps (names and list indexes)."""

    text: str
    steps: tuple[str | int, ...]

    def of(self, event: ChannelEvent) -> Any:
        """Return the value in `event`, or `MISSING`."""
        first, *rest = self.steps
        beside = _BESIDE.get(str(first))
        value = beside(event) if beside else _step(event.payload, first)
        for step in rest:
            value = _step(value, step)
        return value

    def json(self, event: ChannelEvent) -> bytes | Missing:
        """Return the value as JSON, in the event's original text if that is known."""
        value = self.of(event)
        if isinstance(value, Missing):
            return value
        first, *rest = self.steps
        inside = rest if first == "payload" else () if first in _BESIDE else self.steps
        found = json_text.find(event.text, inside) if event.text and inside else None
        if first == "payload" and not rest:
            return payload_text(event)
        return encode(value) if found is None else found

    def shown(self, event: ChannelEvent) -> str | Missing:
        """Return a string unchanged, any other value as JSON. The text is not sanitized."""
        value = self.of(event)
        if isinstance(value, str | Missing):
            return value
        found = self.json(event)
        return found if isinstance(found, Missing) else found.decode()


def parse_path(text: str) -> Path:
    """Parse a path. Raises `UsageError`."""
    if not _PATH.fullmatch(text):
        advice = "write for example request_id, prediction.class or features[0]"
        raise UsageError(f"{text!r} is no path to a field", advice=advice)
    return Path(text, tuple(int(place) if place else name for place, name in _STEP.findall(text)))


def _step(value: Any, step: str | int) -> Any:
    if isinstance(step, str):
        return value.get(step, MISSING) if isinstance(value, dict) else MISSING
    return value[step] if isinstance(value, list) and step < len(value) else MISSING
