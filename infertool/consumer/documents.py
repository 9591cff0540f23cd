"""Result and failure documents as JSON, never larger than `publish.max_bytes`."""

from __future__ import annotations

import time
from typing import Any

import orjson
from msgspec import UNSET

from infertool.codec import EncodeError, for_json
from infertool.consumer.attempt import Encoded, Event, Failure
from infertool.models.port import Cached
from infertool.models.user_code import text_of, type_of
from infertool.telemetry.trace_context import TRACEPARENT
from infertool.text import json_text
from infertool.text.sanitize import printable
from infertool.text.times import iso

# Characters kept of a body that is not JSON, and of ids in an oversized document.
_EXCERPT = 1024
# Characters of a traceback: dashboards keep a few thousand of an event.
_LONGEST_TRACEBACK = 2000
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class UnencodableError(Exception):
    """The model's result cannot be written in the codec of its event, or as JSON."""


def unencodable(error: BaseException) -> Failure:
    """Return why an event fails whose result cannot be written; its own code may have raised `error`."""
    text = printable(text_of(error)[:_EXCERPT])
    reason = text if isinstance(error, UnencodableError | EncodeError) else f"{type_of(error)}: {text}"
    return Failure("infer", "UnencodableResult", f"the model's result cannot be written: {reason}")


class Documents:
    """Encodes documents. `include_payload` adds the event as `original_payload`, without decoding it again.

    They have the field `model_version` where that is known.
    """

    def __init__(self, *, include_payload: bool, max_bytes: int, model_version: str = "") -> None:
        self._include_payload = include_payload
        self._model_version = model_version
        self._max_bytes = max_bytes

    def result(self, event: Event, prediction: Any, processing_s: float, completed_at: float) -> bytes:
        """Return the document of a success; `prediction` may be encoded already. Raises `UnencodableError`.

        Raises whatever the prediction's own code raises, too. `completed_at` is wall-clock time.
        """
        is_cached = type(prediction) is Cached  # not isinstance: `__class__` of a proxy may raise
        result = prediction.result if is_cached else prediction
        document = {
            "event_id": event.event_id,
            "request_id": event.request_id,
            "status": "SUCCESS",
            "prediction": result if isinstance(result, dict) and event.codec.is_text else _object(event, result),
            "processing_ms": _milliseconds(processing_s),
            "attempts": event.earlier_attempts + event.attempts,
            "received_at": iso(event.received_at),
            "completed_at": iso(completed_at),
        }
        if is_cached:
            document["cached"] = True
        return self._encode(event, document, "prediction")

    def failure(self, event: Event, failure: Failure) -> bytes:
        """Return the document of a failure."""
        document = {
            "event_id": event.event_id,
            "request_id": event.request_id,
            "status": "FAILED",
            "stage": failure.stage,
            "error_type": failure.error_type,
            "error": printable(failure.error)[:_EXCERPT],
            "attempts": event.earlier_attempts + event.attempts,
            "received_at": iso(event.received_at),
            "failed_at": iso(time.time()),
        }
        if failure.traceback:
            document["traceback"] = failure.traceback[:_LONGEST_TRACEBACK]
        return self._encode(event, document, "original_text")

    def minimal(self, event: Event, failure: Failure) -> bytes:
        """Return the document of a failure without any content of the event but its ids."""
        document = {
            "event_id": event.event_id,
            "request_id": event.request_id,
            "status": "FAILED",
            "stage": failure.stage,
            "error_type": failure.error_type,
            "error": "left out, as the channel does not take the whole alert: see the dead letter",
            "attempts": event.earlier_attempts + event.attempts,
            "failed_at": iso(time.time()),
            "truncated": ["error", "original_payload"],
        }
        if event.traceparent:
            document[TRACEPARENT] = event.traceparent
        return _dumps(document)

    def _encode(self, event: Event, document: dict[str, Any], dispensable: str) -> bytes:
        if event.traceparent:
            document[TRACEPARENT] = event.traceparent
        if self._model_version:
            document["model_version"] = self._model_version
        if self._include_payload:
            _add_original(document, event)
        encoded = _dumps(document)
        return encoded if len(encoded) <= self._max_bytes else self._cut(document, dispensable)

    def _cut(self, document: dict[str, Any], dispensable: str) -> bytes:
        """Leave out the payload, then the prediction, and say which; ids are cut last."""
        truncated: list[str] = []
        for key in ("original_payload", dispensable):
            if key in document:
                document[key] = None
                truncated.append(key)
            encoded = _dumps({**document, "truncated": truncated})
            if len(encoded) <= self._max_bytes:
                return encoded
        shortened = {key: value[:_EXCERPT] if isinstance(value, str) else value for key, value in document.items()}
        return _dumps({**shortened, "truncated": [*truncated, "ids"]})


def _add_original(document: dict[str, Any], event: Event) -> None:
    if event.payload is UNSET:
        document["original_payload"] = None
        document["original_text"] = event.body[:_EXCERPT].decode("utf-8", "replace")
    elif event.codec.is_text:
        document["original_payload"] = orjson.Fragment(json_text.utf8_line(event.unpacked or event.message.body))
    else:
        document["original_payload"] = _as_json(event)


def _as_json(event: Event) -> orjson.Fragment | None:
    """Return the payload as it came, since a model may have changed it; None where it is nested too deep for JSON."""
    try:
        return orjson.Fragment(_dumps(for_json(event.codec.decode(event.body))))
    except (UnencodableError, RecursionError):
        return None


def _object(event: Event, result: Any) -> Any:
    """Return a result as a JSON object, with texts for what another codec can hold and JSON cannot."""
    if isinstance(result, Encoded):
        text = orjson.Fragment(result.text)
        return text if result.is_object else {"value": text}
    try:
        value = result if event.codec.is_text else for_json(result)
    except RecursionError as error:
        raise UnencodableError(str(error)) from error
    return value if isinstance(value, dict) else {"value": value}


def _milliseconds(seconds: float) -> float:
    """Return milliseconds to three places; a quarter of what round() takes."""
    return int(seconds * 1e6 + 0.5) / 1000


def _dumps(document: Any) -> bytes:
    try:
        return json_text.dumps(document, _OPTIONS)
    except (TypeError, RecursionError) as error:
        raise UnencodableError(str(error)) from error
