"""From a message's bytes to an event's payload and identity. What cannot be decoded is poison: no retry helps it."""

from __future__ import annotations

import re
from typing import Any

from infertool import json_text
from infertool.message import Message
from infertool.pipeline.event import Event, Failure

_HIDDEN = (
    "its body did not come with it: it is a JMS map, object or stream message, or an empty text. "
    "It stays in its queue as it is; take it with a JMS client, and send text or bytes"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def envelope_id(message: Message) -> str:
    """Return the event id that the headers give.

    In order: the producer's `event_id`, the id before a replay (`original_message_id`), the broker's message id.
    """
    headers = message.headers
    return printable(headers.get("event_id") or headers.get("original_message_id") or message.id)


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
        event.event_id = _id(payload.get("event_id")) or event.event_id
    request_id = _id(payload.get("request_id")) or headers.get("correlation-id")
    event.request_id = request_id and printable(request_id)


def _id(given: Any) -> str | None:
    """Return an id as text; None for what is no id: nothing, true, 1.5, a list."""
    # type() and not isinstance: it is the hot path, and True is no id.
    if type(given) is str:
        return given
    return str(given) if type(given) is int else None


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


def printable(text: str) -> str:
    """Return text fit for JSON: bytes that were not UTF-8, and other surrogates, become U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
