"""An event, its outcomes, and one try of it: decode it, then call the model."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, Struct, field

from infertool import codec
from infertool.codec import JSON, Codec
from infertool.consumer.trace import Trace
from infertool.deadletters.delayed import Delay, original
from infertool.deadletters.ids import as_id
from infertool.errors import InferenceError
from infertool.message import Message, Outgoing
from infertool.models.port import Payload, Predict
from infertool.models.user_code import end_if_forked, hold_of, members_of, text_of, traceback_of, type_of
from infertool.telemetry.trace_context import TRACEPARENT, parse
from infertool.text.sanitize import printable


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a try failed, or the event for good. `stage` is decode, infer, publish or crash; expired or caller_gone.

    `hold_s` is set when the model was unavailable: the try does not count, and another follows after `hold_s` seconds.
    `traceback` has a line for each frame of the model's code, the latest call last (`infertool.models.user_code`).
    """

    stage: str
    error_type: str
    error: str
    retryable: bool = False
    hold_s: float | None = None
    traceback: str = ""


class Event(Struct, eq=False, gc=False):
    """One event from its delivery to its settlement.

    `message` is its latest delivery: a redelivery replaces it, since only the newest can be settled.
    `delivered_at` is monotonic, for latencies; `received_at` is wall-clock time. Both in seconds.
    `payload` is UNSET until its body is decoded, by `codec`; `unpacked` is its body where that came packed.
    `earlier_attempts` are those before it came into a retry topic, from which it was delivered if `is_delayed`.
    `deaths` counts worker processes that ended over it; an event that is to be tried `alone` joins no batch. `reply`
    is sent with its result. `traceparent` is that of its message, else that of its payload; empty if it has none.
    While its `trace` is recorded (`infertool.consumer.tracing`), it is that of the publication.
    """

    message: Message
    event_id: str
    request_id: str | None = None
    payload: Payload = UNSET
    codec: Codec = JSON
    unpacked: bytes = b""
    delivered_at: float = field(default_factory=time.monotonic)
    received_at: float = field(default_factory=time.time)
    attempts: int = 0
    earlier_attempts: int = 0
    is_delayed: bool = False
    rejections: int = 0
    first_failed_at: str = ""
    deaths: int = 0
    alone: bool = False
    reply: Outgoing | None = None
    traceparent: str = ""
    trace: Trace | None = None

    @property
    def original(self) -> Message:
        """Its message as it was before it came into retry topics."""
        return original(self.message) if self.is_delayed else self.message

    @property
    def try_traceparent(self) -> str:
        """What a replay of the event links to."""
        return str(self.trace.context) if self.trace else self.traceparent

    @property
    def body(self) -> bytes:
        """Its body as the codec reads it."""
        return self.unpacked or self.message.body


@dataclass(slots=True, eq=False)
class FailedEvent:
    """An event that failed for good; its alert is published, then it is moved to the dead-letter queue.

    With a `delay` it has failed for now, and is moved to that retry topic.

    At most `together` events share a transaction with it, fewer with each that failed; `failures` counts those in which
    it was alone. It is not tried before `not_before` (monotonic, in seconds). `reply` is sent with its alert.
    """

    event: Event
    failure: Failure
    together: int = sys.maxsize
    failures: int = 0
    not_before: float = 0.0
    reply: Outgoing | None = None
    delay: Delay | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DroppedEvent:
    """A request that nobody waits for any more, found at `stage`: acked and counted, after its `reply` if any."""

    event: Event
    stage: str
    reply: Outgoing | None


class Outcome(Struct, frozen=True, gc=False):
    """One try of an event: a prediction, or a failure.

    `started` is when the model was called, monotonic in seconds: the same for all events of a batch, 0 without a call.
    """

    event: Event
    prediction: Any = None
    processing_s: float = 0.0
    failure: Failure | None = None
    started: float = 0.0

    @property
    def is_held(self) -> bool:
        """Whether the model was unavailable."""
        return self.failure is not None and self.failure.hold_s is not None


class Encoded(Struct, frozen=True, gc=False):
    """A prediction that is JSON already; `is_object` is True if the model returned a dict."""

    text: bytes
    is_object: bool


# Events that are tried in one call; one event, except in batches.
Group = list[Event]


_HIDDEN = (
    "its body did not come with it: it is a JMS map, object or stream message, or an empty text. "
    "It stays in its queue as it is; take it with a JMS client, and send text or bytes"
)


class Decoding:
    """Fills in the payload and the ids of events from their bodies.

    `default` is the codec of messages whose content type names none. A payload is an object, or with `any_value`
    whatever its body holds. With `exact` its decimals keep their text: the model passes them on.
    `on_invalid_trace` is called for a `traceparent` that is none.
    """

    def __init__(
        self,
        max_body_bytes: int,
        default: Codec = JSON,
        *,
        any_value: bool = False,
        exact: bool = False,
        on_invalid_trace: Callable[[], None] | None = None,
    ) -> None:
        self._max_body_bytes = max_body_bytes
        self._default = default
        self._any_value = any_value
        self._exact = exact
        self._on_invalid_trace = on_invalid_trace

    def decode(self, event: Event) -> Failure | None:
        """Fill in the event, or return why that cannot be."""
        message = event.message
        body = message.body
        content_type, encoding = message.coding
        used = codec.for_content_type(content_type) or self._default if content_type else self._default
        if self._exact:
            used = codec.exact(used)
        event.codec = used
        if given_trace := message.native.get(TRACEPARENT):
            self._take_trace(event, given_trace)
        if len(body) > self._max_body_bytes:
            return _poison("TooLarge", f"the body has {len(body)} bytes; {self._limit()}")
        if not body:
            hidden = message.hides_body
            return _poison("HiddenBody", _HIDDEN) if hidden else _poison("EmptyBody", "the body is empty")
        try:
            if encoding and codec.is_packed(encoding):
                body = event.unpacked = codec.unpacked(body, encoding, self._max_body_bytes)
            payload = used.decode(body)
        except ValueError as error:
            return self._explain(event, error)
        given = asked = None
        if isinstance(payload, dict):
            given, asked = payload.get("event_id"), payload.get("request_id")
            if (given_trace := payload.get(TRACEPARENT)) is not None and not event.traceparent:
                self._take_trace(event, given_trace)
        elif not self._any_value:
            return _poison("NotAnObject", f"the body is a {used.title} {_type(payload)}, not an object")
        if given is not None and not message.native.get("event_id"):
            event.event_id = as_id(given) or event.event_id
        request_id = as_id(asked) or message.correlation_id
        event.request_id = request_id and printable(request_id)
        event.payload = payload
        return None

    def _take_trace(self, event: Event, given: object) -> None:
        if parse(given):
            event.traceparent = str(given)
        elif self._on_invalid_trace and event.payload is UNSET:
            self._on_invalid_trace()

    def _explain(self, event: Event, error: ValueError) -> Failure:
        reason = event.codec.explain(event.body, error)
        more = f"; {self._limit()}" if reason.kind == "TooLarge" else ""
        return _poison(reason.kind, f"{reason}{more}")

    def _limit(self) -> str:
        return f"consume.max_body_bytes is {self._max_body_bytes}"


def _type(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _poison(error_type: str, error: str) -> Failure:
    return Failure("decode", error_type, error)


# Characters kept of what a model says; it goes into logs, alerts and headers.
LONGEST_ERROR = 1024


class Tried(Struct, frozen=True, gc=False):
    """What the model did with one payload, when it was called (monotonic), and how long it took, in seconds."""

    prediction: Any = None
    processing_s: float = 0.0
    failure: Failure | None = None
    started: float = 0.0


Check = Callable[[Event], Failure | None]


class Preparation:
    """Makes events ready for a try. `on_redelivered` is told of a redelivered one before the model.

    `check` may find that nobody waits for an event any more; `quick_check` is its part that asks nobody.
    """

    def __init__(
        self,
        decoding: Decoding,
        on_redelivered: Check,
        check: Check | None = None,
        quick_check: Check | None = None,
    ) -> None:
        self._decoding = decoding
        self._decode = decoding.decode
        self._on_redelivered = on_redelivered
        self._check = check
        self._quick_check = quick_check

    def on_reader(self) -> Preparation:
        """Return one for the thread that reads from the broker, which must not wait for the broker's answers."""
        return Preparation(self._decoding, self._on_redelivered, self._quick_check, self._quick_check)

    def begin(self, event: Event) -> Failure | None:
        """Count the try and decode the event, or return why it must not be tried."""
        event.attempts += 1
        # Decoded for each try: a model may have changed the payload before it failed.
        poison = self._decode(event)
        if poison is None and self._check is not None:
            poison = self._check(event)
        if poison is None and event.message.redelivered and event.attempts == 1:
            return self._on_redelivered(event)
        return poison


class Attempts:
    """Callable that tries an event with `predict`."""

    def __init__(self, predict: Predict, prepare: Preparation) -> None:
        self._predict = predict
        self._prepare = prepare

    def __call__(self, event: Event) -> Outcome:
        """Return the outcome of one try; never raises."""
        failure = self._prepare.begin(event)
        if failure is not None:
            return Outcome(event, failure=failure)
        # As `call` does, without a record in between: that takes one instruction in fifty of an event.
        started = time.monotonic()
        try:
            prediction = self._predict(event.payload)
        except BaseException as error:  # noqa: BLE001  (see `call`)
            return outcome(event, _raised(error, started))
        end_if_forked()
        return Outcome(event, prediction, time.monotonic() - started, None, started)


def call(predict: Predict, payload: Payload) -> Tried:
    """Ask the model; never raises."""
    started = time.monotonic()
    try:
        prediction = predict(payload)
    except BaseException as error:  # noqa: BLE001  (a model may raise anything, and sys.exit must not end a worker)
        return _raised(error, started)
    end_if_forked()
    return Tried(prediction, time.monotonic() - started, None, started)


def _raised(error: BaseException, started: float) -> Tried:
    end_if_forked()
    return Tried(None, time.monotonic() - started, failure_of(error), started)


def outcome(event: Event, tried: Tried) -> Outcome:
    """Return what a try made of `event`."""
    return Outcome(event, tried.prediction, tried.processing_s, tried.failure, tried.started)


def failure_of(error: BaseException) -> Failure:
    """Return what an exception of a model means; anything but a deliberate refusal or an exit might be transient.

    Never raises, whatever the exception's own code does.
    """
    try:
        return _failure_of(error)
    except BaseException as fault:  # noqa: BLE001  (its class may have properties that raise)
        kind = printable(type(error).__name__)
        return Failure("infer", kind, f"{kind}, which cannot be told: {type(fault).__name__}", retryable=True)


def _failure_of(error: BaseException) -> Failure:
    retryable = all(map(_is_retryable, members_of(error)))
    text, hold_s = printable(text_of(error)[:LONGEST_ERROR]), hold_of(error)
    where = "" if hold_s is not None else printable(traceback_of(error))
    return Failure("infer", printable(type_of(error)), text, retryable, hold_s, where)


def _is_retryable(error: BaseException) -> bool:
    return error.retryable if isinstance(error, InferenceError) else isinstance(error, Exception)
