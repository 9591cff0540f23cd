"""One event as the view keeps it: the few values that show, and the payload as JSON."""

from __future__ import annotations

import math
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

# Ids and names past this many characters are cut: they are for a column. The payload keeps all of them.
_LONGEST = 200
# An error is for the alerts pane, which is wider.
_LONGEST_ERROR = 1_000
# Numbers from here on are times in milliseconds (1973 to 5138), smaller ones in seconds (to 5138).
_FIRST_MS, _LAST_MS = 1e11, 1e14


class Kind(StrEnum):
    """What an event says."""

    RESULT = "result"
    FAILURE = "failure"
    ALERT = "alert"
    OTHER = "other"
    GAP = "gap"


_BY_STATUS = {"SUCCESS": Kind.RESULT, "FAILED": Kind.FAILURE}
_BY_EVENT = {"new_result": Kind.RESULT, "inference_failed": Kind.FAILURE, "alert": Kind.ALERT}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, or a gap between events. `number` counts from 1 and never repeats within a bus.

    `body` is the payload as JSON. `latency_s` is the way from the event's `sent_at` (else `received_at`) to here; it is
    negative where clocks disagree. `at` is the wall-clock time of event, in seconds.
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
        """The payload again."""
        return json_text.loads_nearest(self.body)


def read(number: int, event: ChannelEvent) -> Entry:
    """Return what the view keeps of an event. Whatever the event holds, it can be read."""
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
    """Return the line that stands for events nobody saw."""
    return Entry(number, Kind.GAP, at, label=label)


def kind_of(event: str, fields: Mapping[str, Any]) -> Kind:
    """Say what an event is: by its status, else by its name."""
    status = fields.get("status")
    by_status = _BY_STATUS.get(status) if isinstance(status, str) else None
    return by_status or _BY_EVENT.get(event, Kind.OTHER)


def text(value: Any, longest: int = _LONGEST) -> str:
    """Return a value as text for a column; empty for nothing. Not yet clean."""
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
    except OverflowError:  # a whole number past any float
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
    """Return an alert rule's state and figures in words."""
    state, value, threshold = (text(fields.get(name)) for name in ("state", "value", "threshold"))
    return " ".join(part for part in (state, value, f"(threshold {threshold})" if threshold else "") if part)


def _latency(fields: Mapping[str, Any], at: float) -> float | None:
    original = fields.get("original_payload")
    began = seconds(original.get("sent_at")) if isinstance(original, dict) else None
    if began is None:
        began = seconds(fields.get("received_at"))
    return None if began is None else at - began


def seconds(value: Any) -> float | None:
    """Return a time in seconds since the epoch; None for what cannot be one.

    It is given in ISO 8601, in seconds, or in milliseconds, as Java writes them.
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


def line(entry: Entry) -> bytes:
    """Return an entry as one line of JSON, without its end."""
    document = {"topic": entry.topic, "event": entry.event, "payload": orjson.Fragment(entry.body), "at": entry.at}
    return orjson.dumps(document)


def write(entries: Sequence[Entry], folder: Path, now: float) -> tuple[Path, int]:
    """Write `entries`, in this order, to a new file in `folder`; return it and their number. Raises `OSError`."""
    events = [entry for entry in entries if entry.kind is not Kind.GAP]
    stem = time.strftime("infertool-watch-%Y%m%d-%H%M%S", time.localtime(now))
    path = _free(folder, stem)
    with path.open("xb") as file:
        file.writelines(line(entry) + b"\n" for entry in events)
    return path, len(events)


def _free(folder: Path, stem: str) -> Path:
    path = folder / f"{stem}.jsonl"
    number = 2
    while path.exists():
        path = folder / f"{stem}-{number}.jsonl"
        number += 1
    return path
