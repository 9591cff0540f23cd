"""Requests: events whose sender waits for a reply. Which of them need no answer any more, and what they are answered.

A deadline is what the message says of its end: its expiry, its lifetime from its timestamp, or the header `deadline`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from infertool.codec import Codec, EncodeError
from infertool.consumer.attempt import LONGEST_ERROR, DroppedEvent, Encoded, Event, Failure
from infertool.consumer.documents import UnencodableError
from infertool.errors import InfertoolError
from infertool.message import BodyKind, Message, Outgoing, Properties
from infertool.models.port import Cached
from infertool.telemetry.trace_context import TRACEPARENT
from infertool.text import json_text
from infertool.text.sanitize import printable

EXPIRED: Final = "expired"
CALLER_GONE: Final = "caller_gone"
# Stages at which a request is dropped: acked and counted, and no dead letter.
DROPPED: Final = frozenset({EXPIRED, CALLER_GONE})

DEADLINE: Final = "deadline"
# What a replay gives a dead letter. Whoever replays a request wants it done, whatever its deadline was.
_REPLAYED: Final = "original_message_id"
# A number below is seconds, from there on milliseconds: 5138 in seconds, 1973 in milliseconds.
_LEAST_MS: Final = 1e11
# A time past the year 30 000 is none.
_MOST_MS: Final = 1e15
_SECOND_MS: Final = 1000

# A model whose calls take longer than this on average is worth the question whether the caller is still there. Seconds.
SLOW_S: Final = 1.0
# Longest wait for the answer to that question. Seconds.
ASK_S: Final = 0.5
_WEIGHT: Final = 0.2

ReplyExists = Callable[[str, float], bool | None]


def deadline_ms(message: Message, received_at: float) -> float | None:
    """Return when a message's sender stops to wait, in milliseconds since the epoch; None if it does not say."""
    properties = message.properties
    given = [properties.expires_ms, _written(message.headers.get(DEADLINE))]
    if properties.ttl_ms is not None:
        given.append(_sent_ms(properties, received_at) + properties.ttl_ms)
    return min((each for each in given if each is not None), default=None)


def _sent_ms(properties: Properties, received_at: float) -> float:
    sent_ms = properties.timestamp_ms
    if sent_ms is None:
        return received_at * _SECOND_MS
    # Where times are whole seconds, up to one was cut off.
    return sent_ms if sent_ms % _SECOND_MS else sent_ms + _SECOND_MS - 1


def _written(text: str | None) -> float | None:
    """Return the time that a header says: seconds or milliseconds since the epoch, or ISO 8601; None for neither."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return _iso_ms(text)
    if not abs(number) < _MOST_MS:
        return None
    return number if number >= _LEAST_MS else number * _SECOND_MS


def _iso_ms(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * _SECOND_MS


class Requests:
    """Decides before the model whether a request is still worth its work. Thread-safe.

    `reply_exists` asks the broker for a reply queue; it is asked only while the model is slow, and not by the thread
    that reads from the broker, which brings the answer. Without it nobody is asked.
    """

    def __init__(self, reply_exists: ReplyExists | None = None) -> None:
        self._reply_exists = reply_exists
        self._mean_s: float | None = None

    def measured(self, times_s: Sequence[float]) -> None:
        """Add the times of calls of the model, in seconds."""
        mean_s = self._mean_s
        for seconds in times_s:
            mean_s = seconds if mean_s is None else mean_s + _WEIGHT * (seconds - mean_s)
        self._mean_s = mean_s

    def check(self, event: Event) -> Failure | None:
        """Return why a request is to be dropped, or None."""
        return self.check_deadline(event) or self._check_caller(event)

    def check_deadline(self, event: Event) -> Failure | None:
        """Return why a request is to be dropped, without a question to the broker."""
        message = event.message
        if not is_request(message):
            return None
        deadline = deadline_ms(message, event.received_at)
        late_ms = time.time() * _SECOND_MS - deadline if deadline is not None else -1.0
        if late_ms <= 0:
            return None
        return Failure(EXPIRED, "Expired", f"the deadline of the request passed {late_ms / _SECOND_MS:.3f} s ago")

    def _check_caller(self, event: Event) -> Failure | None:
        if self._reply_exists is None or self._mean_s is None or self._mean_s < SLOW_S:
            return None
        if not is_request(event.message):
            return None
        address = event.message.properties.reply_to or ""
        try:
            exists = self._reply_exists(address, ASK_S)
        except InfertoolError:
            return None  # what is no queue, or a connection that was lost: the reply will show it
        if exists is not False:
            return None
        return Failure(CALLER_GONE, "CallerGone", f"nobody waits for a reply any more at {address}")


def is_request(message: Message) -> bool:
    """Return True for a message whose sender waits for a reply; nobody waits for that of a replay."""
    return bool(message.properties.reply_to) and _REPLAYED not in message.native


def is_asked(event: Event) -> bool:
    """Return True for an event whose sender names a queue for the reply."""
    return bool(event.message.properties.reply_to)


class Answers:
    """Writes replies, in the codec of the request. Each method returns None for an event that asks for no reply.

    With `form` result the body is the model's result itself; with outcome it is the document that is published. `only`
    says that replies are all that is published. Replies of results and failures have the header `model_version` where
    that is known.
    """

    def __init__(self, form: Literal["result", "outcome"], model_version: str = "", *, only: bool = False) -> None:
        self._whole = form == "outcome"
        self._only = only
        self._version = {"model_version": model_version} if model_version else {}

    def suffices(self, event: Event) -> bool:
        """Return True if nobody would read the document of the result of `event`."""
        return self._only and not self._whole and is_asked(event)

    def result(self, event: Event, prediction: Any, processing_s: float, document: bytes) -> Outgoing | None:
        """Return the reply of a success. Raises as `Documents.result`."""
        if not is_asked(event):
            return None
        result = prediction.result if type(prediction) is Cached else prediction
        body = self._document(event, result, document) if self._whole else _body(event.codec, result)
        headers = {"status": "SUCCESS", "event_id": event.event_id, "processing_ms": f"{processing_s * 1000:.3f}"}
        return _reply(event, body, headers | self._version)

    def failure(self, event: Event, failure: Failure, document: bytes) -> Outgoing | None:
        """Return the reply of a failure."""
        if not is_asked(event):
            return None
        if self._whole and document:
            body = event.codec.encode(json_text.loads(document)) if not event.codec.is_text else document
        else:
            body = event.codec.encode(_failure(event, failure, "FAILED"))
        return _reply(event, body, {"status": "FAILED", "event_id": event.event_id, **self._version})

    def dropped(self, event: Event, failure: Failure) -> DroppedEvent:
        """Return a request that is dropped, with its reply if somebody may wait for that."""
        reply = None
        if failure.stage == EXPIRED:
            body = event.codec.encode(_failure(event, failure, "EXPIRED"))
            reply = _reply(event, body, {"status": "EXPIRED", "event_id": event.event_id})
        return DroppedEvent(event, failure.stage, reply)

    def _document(self, event: Event, result: Any, document: bytes) -> bytes:
        if event.codec.is_text:
            return document
        # The document has texts for what JSON cannot hold; the caller gets the result as it is.
        return _encoded(event.codec, {**json_text.loads(document), "prediction": result})


def _failure(event: Event, failure: Failure, status: str) -> dict[str, Any]:
    return {
        "status": status,
        "error": printable(failure.error)[:LONGEST_ERROR],
        "error_type": failure.error_type,
        "stage": failure.stage,
        "retryable": failure.retryable,
        "event_id": event.event_id,
    }


def _body(used: Codec, result: Any) -> bytes:
    return result.text if isinstance(result, Encoded) else _encoded(used, result)


def _encoded(used: Codec, value: Any) -> bytes:
    try:
        return used.encode(value)
    except EncodeError as error:
        raise UnencodableError(str(error)) from error


def _reply(event: Event, body: bytes, headers: dict[str, str]) -> Outgoing:
    """Return a reply to what the request names; without a correlation id the id of the request takes its place."""
    message = event.message
    asked = message.properties
    properties = Properties(
        correlation_id=asked.correlation_id or asked.message_id or message.id,
        content_type=event.codec.content_type,
        priority=asked.priority,
        persistent=asked.persistent,
    )
    if event.traceparent:
        headers = {**headers, TRACEPARENT: event.traceparent}
    kind = message.kind if event.codec.is_text else BodyKind.BYTES
    return Outgoing(asked.reply_to or "", body, kind, headers, properties)
