"""From a message's bytes to an event's payload and identity. What cannot be decoded is poison: no retry helps it."""

from __future__ import annotations

from typing import Any

from infertool import json_text
from infertool.deadletter.ids import as_id
from infertool.pipeline.event import Event, Failure
from infertool.printable import printable

_HIDDEN = (
    "its body did not come with it: it is a JMS map, object or stream message, or an empty text. "
    "It stays in its queue as it is; take it with a JMS client, and send text or bytes"
)


def decode(event: Event, max_body_bytes: int) -> Failure | None:
    """Fill in the event's payload and ids from its body, or return why that cannot be."""
    body = event.message.body
    if len(body) > max_body_bytes:
        return _poison("TooLarge", f"the body has {len(body)} bytes; consume.max_body_bytes is {max_body_bytes}")
    if not body:
        hidden = event.message.hides_body
        return _poison("HiddenBody", _HIDDEN) if hidden else _poison("EmptyBody", "the body is empty")
    try:
        payload = json_text.loads(body)
    except json_text.JsonError as error:
        return _poison(*_explain(body, error))
    if not isinstance(payload, dict):
        return _poison("NotAnObject", f"the body is a JSON {_json_type(payload)}, not an object")
    _identify(event, payload)
    event.payload = payload
    return None


def _identify(event: Event, payload: dict[str, Any]) -> None:
    headers = event.message.headers
    if not headers.get("event_id"):
        event.event_id = as_id(payload.get("event_id")) or event.event_id
    request_id = as_id(payload.get("request_id")) or headers.get("correlation-id")
    event.request_id = request_id and printable(request_id)


def _explain(body: bytes, error: json_text.JsonError) -> tuple[str, str]:
    if isinstance(error, json_text.NumberError):
        return "NumberOutOfRange", f"the body holds a number that cannot be held: {error}"
    try:
        body.decode()
    except UnicodeDecodeError as not_utf8:
        return "NotUtf8", f"the body is not UTF-8: {not_utf8.reason} at byte {not_utf8.start}"
    return "NotJson", f"the body is not JSON: {error}"


def _json_type(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names[type(value)]


def _poison(error_type: str, error: str) -> Failure:
    return Failure("decode", error_type, error)
