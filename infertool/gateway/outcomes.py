"""Outcomes of requests, from the ends of their calls, in the form in which a consumer answers."""

from __future__ import annotations

import logging
import time
from typing import Any, Final, TypeGuard

import msgspec

from infertool import codec
from infertool.errors import CallTimeoutError, ConnectionLostError, RefusedError, UnreadableReplyError, UnroutableError
from infertool.gateway.request import InferRequest, Outcome, State
from infertool.rpc import Call, Reply
from infertool.text import json_text
from infertool.text.sanitize import printable

_log = logging.getLogger(__name__)
# Stage of a request whose message the broker refuses: no consumer has it, and no dead letter.
SEND: Final = "send"
# Stage of a request whose reply cannot be unpacked: the consumer has done its work, and no dead letter has it.
REPLY: Final = "reply"
_EXPIRED: Final = "EXPIRED"
_BYTES: Final = "application/octet-stream"
# Headers of a reply that are kept.
_KEPT: Final = ("event_id", "model_version", "traceparent")
_LONGEST: Final = 1000


class Unsent:
    """A call ended without a word from a consumer, and its request is to be sent again.

    `is_unroutable`: the broker has no such queue, which its consumers may be about to make.
    """

    __slots__ = ("is_unroutable", "reason")

    def __init__(self, reason: str, *, is_unroutable: bool = False) -> None:
        self.reason = reason
        self.is_unroutable = is_unroutable


def of_call(call: Call, request: InferRequest) -> Outcome | Unsent:
    """Return how a call that is done ended."""
    if call.reply is not None:
        try:
            return _of_reply(call.reply, State.FAILED if call.failure else None)
        except UnreadableReplyError as unreadable:
            return _own(request, State.FAILED, REPLY, type(unreadable).__name__, str(unreadable))
    error = call.exception()
    if isinstance(error, CallTimeoutError):
        return expired(request)
    if isinstance(error, ConnectionLostError):
        return Unsent(str(error))
    if isinstance(error, UnroutableError):
        return Unsent(str(error), is_unroutable=True)
    return failed(request, error or RuntimeError("a call without an end"))


def expired(request: InferRequest) -> Outcome:
    """Return the outcome of a request whose deadline has passed."""
    return _own(request, State.EXPIRED, "expired", "Expired", "the deadline passed before a result came")


def cancelled(request: InferRequest, reason: str) -> Outcome:
    """Return the outcome of a request that is given up."""
    return _own(request, State.CANCELLED, "cancelled", "Cancelled", reason)


def failed(request: InferRequest, error: BaseException) -> Outcome:
    """Return the outcome of a request that the broker refuses. The caller is not told of addresses."""
    _log.warning("request %s cannot be sent: %s", request.id, error)
    why = f"the broker refuses it: {error.reason}" if isinstance(error, RefusedError) and error.reason else str(error)
    return _own(request, State.FAILED, SEND, type(error).__name__, why)


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _of_reply(reply: Reply, state: State | None) -> Outcome:
    # Not its headers and properties, which are made anew: all of one message.
    said = reply.message.native
    body = reply.content or b"null"
    if state is not None and reply.status == _EXPIRED:
        state = State.EXPIRED
    # The store keeps, and JSON holds, only what is UTF-8.
    headers = {name: printable(said[name][:_LONGEST]) for name in _KEPT if name in said}
    return Outcome(
        state=state or State.SUCCEEDED,
        body=body,
        content_type=_content_type(reply, body),
        processing_ms=_number(said.get("processing_ms")),
        finished_ms=now_ms(),
        headers=headers,
    )


_decode_raw: Final = msgspec.msgpack.Decoder(msgspec.Raw).decode


def _content_type(reply: Reply, body: bytes) -> str:
    """Return the content type that `body` has, whatever the consumer says: a document may hold it as it is."""
    named = reply.message.coding[0]
    named = named if _is_content_type(named) else ""
    if reply.codec is codec.MSGPACK and _is_msgpack(body):
        return codec.MSGPACK.content_type
    is_named = codec.for_content_type(named) is not None
    if reply.codec is codec.JSON and json_text.is_json(body):
        return named if is_named else codec.JSON.content_type
    return _BYTES if is_named or not named else named


def _is_msgpack(body: bytes) -> bool:
    try:
        _decode_raw(body)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def _is_content_type(text: str | None) -> TypeGuard[str]:
    """Return True for what a header of a response can hold."""
    return text is not None and text != "" and text.isascii() and text.isprintable() and len(text) <= _LONGEST


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _own(request: InferRequest, state: State, stage: str, error_type: str, error: str) -> Outcome:
    document: dict[str, Any] = {
        "event_id": request.id,
        "status": state.name,
        "stage": stage,
        "error_type": error_type,
        "error": error,
        "retryable": state is not State.CANCELLED,
    }
    return Outcome(state=state, body=json_text.dumps(document), finished_ms=now_ms())
