"""Frames to arrivals. A push that holds many results becomes an arrival a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import orjson

from infertool.phoenix import push
from infertool.phoenix.frames import Frame
from infertool.text import json_text


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """An event on a topic.

    `payload` is decoded JSON, or the bytes of a binary frame; `at` is when it came, in wall-clock seconds; `source` is
    a label of where it came from, without secrets, empty when there is but one. `text` is the payload as it was
    written, JSON in one line; empty where only its value is known.
    """

    topic: str
    event: str
    payload: Any
    at: float
    source: str = ""
    text: bytes = field(default=b"", repr=False, compare=False)


OnChannelEvents = Callable[[Sequence[ChannelEvent]], None]


TOO_DEEP = "(nested too deep)"
# orjson reads 1024 levels and writes 254. What is nested deeper than this loses what is below.
_DEEPEST = 200


def document(arrival: ChannelEvent) -> dict[str, Any]:
    """Return the arrival as `tail -o jsonl` shows it; `source` only where there is one."""
    payload = orjson.Fragment(arrival.text) if arrival.text else arrival.payload
    shown = {"topic": arrival.topic, "event": arrival.event, "payload": payload, "at": arrival.at}
    if arrival.source:
        shown["source"] = arrival.source
    return shown


def payload_text(arrival: ChannelEvent) -> bytes:
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


_RESULT_EVENT = "new_result"


def arrivals(frames: Sequence[Frame], *, at: float, source: str = "") -> list[ChannelEvent]:
    """Return what `frames` hold, in order. `new_results` that are no `{"results": [...]}` pass as they are."""
    unpacked: list[ChannelEvent] = []
    for frame in frames:
        if push.is_batch(frame):
            pairs = zip_longest(push.documents(frame), push.texts(frame), fillvalue=b"")
            unpacked += [ChannelEvent(frame.topic, _RESULT_EVENT, result, at, source, text) for result, text in pairs]
        else:
            unpacked.append(ChannelEvent(frame.topic, frame.event, frame.payload, at, source, frame.payload_text()))
    return unpacked
