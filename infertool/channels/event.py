"""`ChannelEvent`, made from Phoenix frames; its JSON forms; dotted paths into it, such as `prediction.class`.

A push of many results becomes one event a result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import zip_longest
from typing import Any, Final

import orjson

from infertool.errors import UsageError
from infertool.phoenix.frames import Frame
from infertool.phoenix.push import document_texts, documents, is_batch
from infertool.text import json_text


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """An event on a topic.

    `payload` is decoded JSON, or the bytes of a binary frame. `at` is the time of arrival in wall-clock seconds.
    `source` is a label of the server, without secrets; empty if there is only one. `text` is the payload's original
    JSON, in one line; empty if only the value is known.
    """

    topic: str
    event: str
    payload: Any
    at: float
    source: str = ""
    text: bytes = field(default=b"", repr=False, compare=False)


OnChannelEvents = Callable[[Sequence[ChannelEvent]], None]


TOO_DEEP = "(nested too deep)"
# orjson reads 1024 levels and writes 254. Values nested deeper than this are replaced by `TOO_DEEP`.
_DEEPEST = 200


def document(event: ChannelEvent) -> dict[str, Any]:
    """Return the event as `tail -o jsonl` shows it; with `source` only if it is set."""
    payload = orjson.Fragment(event.text) if event.text else event.payload
    shown = {"topic": event.topic, "event": event.event, "payload": payload, "at": event.at}
    if event.source:
        shown["source"] = event.source
    return shown


def payload_text(event: ChannelEvent) -> bytes:
    """Return the payload as JSON: the original text if it is known."""
    return event.text or encode(event.payload)


def encode(value: Any) -> bytes:
    """Encode `value` as JSON. Bytes become a string in which each byte is the character with its number."""
    try:
        return orjson.dumps(value, default=_plain)
    except orjson.JSONEncodeError:
        return orjson.dumps(json_text.exact(_cut(value, _DEEPEST)), default=_plain)


def text(value: Any) -> str:
    """Return a string unchanged, any other value as JSON. The text is not sanitized."""
    return value if isinstance(value, str) else encode(value).decode()


def fixed(value: float, digits: int) -> str:
    """Return a number with `digits` decimals. An integer may be past any float."""
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


_RESULT_EVENT = "new_result"


def from_frames(frames: Sequence[Frame], *, at: float, source: str = "") -> list[ChannelEvent]:
    """Return the events in `frames`, in order. A `new_results` without `{"results": [...]}` is one event."""
    unpacked: list[ChannelEvent] = []
    for frame in frames:
        if is_batch(frame):
            pairs = zip_longest(documents(frame), document_texts(frame), fillvalue=b"")
            unpacked += [ChannelEvent(frame.topic, _RESULT_EVENT, result, at, source, text) for result, text in pairs]
        else:
            unpacked.append(ChannelEvent(frame.topic, frame.event, frame.payload, at, source, frame.payload_text()))
    return unpacked


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
