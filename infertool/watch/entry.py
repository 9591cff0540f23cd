"""Entries: events as the view keeps them (the displayed values, and the payload as JSON), and their export."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from infertool.channels.event import ChannelEvent, encode, payload_text
from infertool.text import json_text

# Maximum length of ids and names, which fill a column. The payload is complete. Characters.
_LONGEST = 200
# Maximum length of an error, which fills the wider alerts pane. Characters.
_LONGEST_ERROR = 1_000
# Times: numbers from _FIRST_MS are milliseconds (years 1973 to 5138), smaller ones are seconds.
_FIRST_MS, _LAST_MS = 1e11, 1e14


class Kind(StrEnum):
    """The kind of an entry. GAP stands for events that were missed."""

    RESULT = "result"
    FAILURE = "failure"
    ALERT = "alert"
    OTHER = "other"
    GAP = "gap"


_BY_STATUS = {"SUCCESS": Kind.RESULT, "FAILED": Kind.FAILURE}
_BY_EVENT = {"new_result": Kind.RESULT, "inference_failed": Kind.FAILURE, "alert": Kind.ALERT}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, or a gap between events. `number` counts from 1 and is unique within a bus.

    `body` is the payload as JSON. `latency_s` is the time from the event's `sent_at` (else `received_at`) to its
    arrival; negative if the clocks differ. `at` is the wall-clock time of arrival, in seconds.
    """

    number: int
    kind: Kind
    at: float
    topic: str = ""
    event: str = ""
    body: bytes = b"{}"
    event_id: str = ""
    name: str = ""
    label: str = ""
    confidence: float | None = None
    processing_ms: float | None = None
    latency_s: float | None = None
    attempts: str = ""

    @property
    def payload(self) -> Any:
        """The decoded payload."""
        return json_text.loads_nearest(self.body)

    @property
    def whole_event_id(self) -> str:
        """The event id at full length; empty without one."""
        fields = self.payload
        return text(fields.get("event_id"), len(self.body)) if isinstance(fields, dict) else ""


def read(number: int, event: ChannelEvent) -> Entry:
    """Return the entry of an event. Never raises, for any payload."""
    fields = event.payload if isinstance(event.payload, dict) else {}
    kind = kind_of(event.event, fields)
    prediction = fields.get("prediction")
    known = prediction if isinstance(prediction, dict) else {}
    event_id = text(fields.get("event_id"))
    return Entry(
        number=number,
        kind=kind,
        at=event.at,
        topic=event.topic,
        event=event.event,
        body=payload_text(event),
        event_id=event_id,
        name=text(fields.get("request_id")) or event_id or text(fields.get("rule")),
        label=_label(kind, fields, prediction),
        confidence=number_in(known, "confidence"),
        processing_ms=number_in(fields, "processing_ms"),
        latency_s=_latency(fields, event.at),
        attempts=text(fields.get("attempts")),
    )


def gap(number: int, at: float, label: str) -> Entry:
    """Return an entry for missed events."""
    return Entry(number, Kind.GAP, at, label=label)


def kind_of(event: str, fields: Mapping[str, Any]) -> Kind:
    """Return the kind of an event: by its status, else by its name."""
    status = fields.get("status")
    by_status = _BY_STATUS.get(status) if isinstance(status, str) else None
    return by_status or _BY_EVENT.get(event, Kind.OTHER)


def text(value: Any, longest: int = _LONGEST) -> str:
    """Return a value as text for a column; empty for None. The text is not sanitized."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value[:longest]
    return encode(value)[:longest].decode("utf-8", "replace")


def number_in(fields: Mapping[str, Any], name: str) -> float | None:
    """Return a finite number, or None for anything else."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer past any float
        return None


def _label(kind: Kind, fields: Mapping[str, Any], prediction: Any) -> str:
    match kind:
        case Kind.FAILURE:
            parts = (text(fields.get(name), _LONGEST_ERROR) for name in ("stage", "error_type", "error"))
            return ": ".join(part for part in parts if part)
        case Kind.ALERT:
            return rule_label(fields)
        case _ if isinstance(prediction, dict) and "class" in prediction:
            return text(prediction["class"])
        case Kind.RESULT:
            return text(prediction)
        case _:
            return text(fields)


def rule_label(fields: Mapping[str, Any]) -> str:
    """Return an alert rule's state, value and threshold as text."""
    state, value, threshold = (text(fields.get(name)) for name in ("state", "value", "threshold"))
    return " ".join(part for part in (state, value, f"(threshold {threshold})" if threshold else "") if part)


def _latency(fields: Mapping[str, Any], at: float) -> float | None:
    original = fields.get("original_payload")
    began = seconds(original.get("sent_at")) if isinstance(original, dict) else None
    if began is None:
        began = seconds(fields.get("received_at"))
    return None if began is None else at - began


def seconds(value: Any) -> float | None:
    """Return a time in seconds since the epoch; None if `value` is not a time.

    Accepts ISO 8601, seconds, and milliseconds (Java).
    """
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    number = number_in({"at": value}, "at")
    if number is None or not 0 < number < _LAST_MS:
        return None
    return number / 1000 if number >= _FIRST_MS else number


def json_line(entry: Entry) -> bytes:
    """Return an entry as one line of JSON, without line end."""
    document = {"topic": entry.topic, "event": entry.event, "payload": orjson.Fragment(entry.body), "at": entry.at}
    return orjson.dumps(document)


def write_entries(entries: Sequence[Entry], folder: Path, now: float) -> tuple[Path, int]:
    """Write `entries` to a new file in `folder`; return its path and the number of events. Raises `OSError`.

    As of a recording, only its owner may read it.
    """
    events = [entry for entry in entries if entry.kind is not Kind.GAP]
    stem = time.strftime("infertool-watch-%Y%m%d-%H%M%S", time.localtime(now))
    path = _free(folder, stem)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.writelines(json_line(entry) + b"\n" for entry in events)
    return path, len(events)


def _free(folder: Path, stem: str) -> Path:
    path = folder / f"{stem}.jsonl"
    number = 2
    while path.exists():
        path = folder / f"{stem}-{number}.jsonl"
        number += 1
    return path
