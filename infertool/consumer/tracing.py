"""Spans of the consumer: `process QUEUE`, the calls of the model, `send TOPIC` and `settle QUEUE`.

It stands between the parts of the pipeline, and takes times as events pass: the parts know nothing of it, and without
it nothing is done. Spans are made when an event is settled. An event that is handed back has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import urlsplit

from infertool.consumer.attempt import DroppedEvent, Event, FailedEvent, Failure, Outcome, Preparation
from infertool.consumer.router import Published, event_of
from infertool.consumer.trace import Call, Trace
from infertool.deadletters import marks
from infertool.publishers.port import Confirmation, OnSettled, Rejection
from infertool.telemetry import trace_context
from infertool.telemetry.sampling import Sampler
from infertool.telemetry.signals import Observe, Traced
from infertool.telemetry.spans import Kind, Span
from infertool.telemetry.trace_context import TraceContext

# Calls of the model that one event's trace shows; it may wait for a model for days.
_MOST_CALLS = 32
# Where the model is asked: a failure of these stages is one of a call.
_CALLED = frozenset({"infer", "crash"})
_UNANSWERED = "caller_gone"

Attributes = dict[str, str | int | float | bool]


class Exporter(Protocol):
    """Takes spans that have ended. Never waits."""

    sampler: Sampler

    def admits(self, count: int) -> bool:
        """Return True if there is room for `count` spans; else count them as dropped."""

    def export(self, spans: Sequence[Span]) -> None:
        """Queue spans."""

    def close(self, timeout_s: float) -> None:
        """Export what waits, for at most `timeout_s`."""


@dataclass(frozen=True, slots=True)
class Places:
    """Names in the spans. `topic` is where results go; empty if they go nowhere but in replies.

    `by_source` has the names of the queues of a consumer that has several, by what their messages say.
    """

    system: str
    queue: str
    topic: str
    model: str
    address: Callable[[], str]
    by_source: Mapping[str, str] = field(default_factory=dict)


class Tracing:
    """Records events whose trace is recorded. Thread-safe: an event is with one thread at a time.

    With `as_parent` an event goes on in the trace of its producer; else it begins a trace that links to that.
    """

    def __init__(self, exporter: Exporter, places: Places, *, as_parent: bool, observe: Observe) -> None:
        self._observe = observe
        self._exporter = exporter
        self._records = exporter.sampler.records
        self._places = places
        self._as_parent = as_parent
        self._call_name = f"infer {places.model}"
        self._messaging = {
            (operation, queue): _messaging(places.system, operation, queue)
            for operation in ("process", "settle")
            for queue in {places.queue, *places.by_source.values()}
        }

    def begin(self, event: Event) -> None:
        """Note that a try of an event begins."""
        trace = event.trace
        if trace is None:
            if event.attempts > 1:
                return
            trace = event.trace = self._new_trace(event)
            if trace is None:
                return
        trace.tried = time.monotonic()
        event.traceparent = str(trace.sent)

    def _new_trace(self, event: Event) -> Trace | None:
        parent = trace_context.parse(event.traceparent) if event.traceparent else None
        trace_id = parent.trace_id if parent and self._as_parent else trace_context.new_trace_id()
        if not self._records(parent, trace_id):
            return None
        message = event.message
        first = marks.ours(message.headers).get("original_traceparent") if marks.REPLAY in message.native else None
        context, sent = (TraceContext(trace_id, trace_context.new_span_id()) for _ in range(2))
        return Trace(context, sent, parent, trace_context.parse(first))

    def outcomes(self, outcomes: Sequence[Outcome], route: Callable[[Sequence[Outcome]], None]) -> None:
        """Note the outcomes of tries, then `route` them."""
        if recorded := [outcome for outcome in outcomes if outcome.event.trace is not None]:
            self._note_calls(recorded, outcomes)
        route(outcomes)
        for outcome in recorded:
            if outcome.failure is not None and outcome.failure.stage == _UNANSWERED:
                self._finish(outcome.event, "ack", outcome.failure)

    def _note_calls(self, recorded: Sequence[Outcome], outcomes: Sequence[Outcome]) -> None:
        now = time.monotonic()
        sizes: dict[float, int] = {}
        for outcome in outcomes:
            sizes[outcome.started] = sizes.get(outcome.started, 0) + 1
        batches: dict[float, TraceContext] = {}
        for outcome in recorded:
            trace, started, failure = outcome.event.trace, outcome.started, outcome.failure
            assert trace is not None  # noqa: S101  (that is why it is among them)
            trace.sending = now
            if not started and (failure is None or failure.stage not in _CALLED):
                continue
            batch = None
            if started and sizes[started] > 1:
                batch = batches.get(started) or batches.setdefault(started, trace_context.new())
            seconds = outcome.processing_s if started else now - trace.tried
            if len(trace.calls) < _MOST_CALLS:
                trace.calls.append(Call(started or trace.tried, seconds, *_error_of(failure), batch))
        for started, batch in batches.items():
            members = [outcome.event for outcome in recorded if outcome.started == started]
            self._exporter.export([self._batch(batch, members, started, sizes[started], recorded)])

    def _batch(
        self, context: TraceContext, members: Sequence[Event], started: float, size: int, recorded: Iterable[Outcome]
    ) -> Span:
        """Return the span of a call for several events: it links to each of them that is recorded."""
        traces = [event.trace for event in members if event.trace]
        seconds = max(outcome.processing_s for outcome in recorded if outcome.started == started)
        return Span(
            self._call_name,
            Kind.INTERNAL,
            context,
            None,
            traces[0].wall_ns(started),
            traces[0].wall_ns(started + seconds),
            {"infertool.model": self._places.model, "messaging.batch.message_count": size},
            [trace.context for trace in traces],
        )

    def settled(
        self,
        confirmations: Sequence[Confirmation[Published]],
        rejections: Sequence[Rejection[Published]],
        route: OnSettled[Published],
    ) -> None:
        """Note what is confirmed, then have `route` settle it."""
        now = time.monotonic()
        recorded: list[Published] = []
        for confirmation in confirmations:
            context = confirmation.publication.context
            trace = event_of(context).trace
            if trace is not None:
                trace.confirmed = now
                trace.replied_to = context.reply.destination if context.reply else ""
                recorded.append(context)
        route(confirmations, rejections)
        for context in recorded:
            if isinstance(context, Event):
                self._finish(context, "ack", None)
            elif isinstance(context, DroppedEvent):
                self._finish(context.event, "ack", Failure(context.stage, context.stage, ""))

    def dead_lettered(self, failed: Sequence[FailedEvent]) -> None:
        """Note events whose dead letters the broker holds."""
        for each in failed:
            if each.event.trace is not None:
                self._finish(each.event, "dead_letter", each.failure)

    def close(self, timeout_s: float) -> None:
        """Export what waits, for at most `timeout_s`."""
        self._exporter.close(timeout_s)

    def _finish(self, event: Event, outcome: str, failure: Failure | None) -> None:
        """Make the spans of an event that is settled."""
        trace, event.trace = event.trace, None
        sends = trace is not None and bool(trace.confirmed and (self._places.topic or trace.replied_to))
        if trace is None or not self._exporter.admits(1 + len(trace.calls) + bool(trace.confirmed) + sends):
            return
        now = time.monotonic()
        self._observe(Traced(trace.context.trace_id, now - event.delivered_at))
        spans = [self._process(event, trace, now, outcome, failure), *(self._call(trace, each) for each in trace.calls)]
        if sends:
            spans.append(self._send(trace))
        if trace.confirmed:
            spans.append(self._settle(event, trace, now, outcome))
        self._exporter.export(spans)

    def _process(self, event: Event, trace: Trace, now: float, outcome: str, failure: Failure | None) -> Span:
        error_type, error = _error_of(failure)
        queue = self._queue(event)
        attributes = {
            **self._messaging["process", queue],
            **_server(self._places.address()),
            "messaging.message.id": event.message.id,
            "messaging.message.body.size": len(event.message.body),
            "infertool.event_id": event.event_id,
            "infertool.attempts": event.attempts,
            "infertool.outcome": outcome,
            "infertool.waited_ms": round((trace.began - event.delivered_at) * 1000, 3),
        }
        if event.message.correlation_id:
            attributes["messaging.message.conversation_id"] = event.message.correlation_id
        if error_type:
            attributes["error.type"] = error_type
        links = [each for each in (trace.parent, trace.first_try) if each is not None]
        parent = trace.parent if self._as_parent else None
        start, end = trace.wall_ns(trace.began), trace.wall_ns(now)
        return Span(f"process {queue}", Kind.CONSUMER, trace.context, parent, start, end, attributes, links, error)

    def _call(self, trace: Trace, call: Call) -> Span:
        attributes: Attributes = {"infertool.model": self._places.model}
        if call.error_type:
            attributes["error.type"] = call.error_type
        start, end = trace.wall_ns(call.started), trace.wall_ns(call.started + call.seconds)
        links = [call.batch] if call.batch else []
        return self._child(self._call_name, Kind.INTERNAL, trace, start, end, attributes, links, call.error)

    def _send(self, trace: Trace) -> Span:
        topic = self._places.topic
        attributes: Attributes = {
            "messaging.system": "phoenix" if topic else self._places.system,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic or trace.replied_to,
        }
        start, end = trace.wall_ns(trace.sending), trace.wall_ns(trace.confirmed)
        name = f"send {topic or '(temporary)'}"
        return Span(name, Kind.PRODUCER, trace.sent, trace.context, start, end, attributes)

    def _settle(self, event: Event, trace: Trace, now: float, outcome: str) -> Span:
        queue = self._queue(event)
        attributes = {
            **self._messaging["settle", queue],
            "messaging.message.id": event.message.id,
            "infertool.outcome": outcome,
        }
        start, end = trace.wall_ns(trace.confirmed), trace.wall_ns(now)
        return self._child(f"settle {queue}", Kind.CLIENT, trace, start, end, attributes)

    def _queue(self, event: Event) -> str:
        return self._places.by_source.get(event.message.source, self._places.queue)

    @staticmethod
    def _child(
        name: str,
        kind: Kind,
        trace: Trace,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        links: Sequence[TraceContext] = (),
        error: str = "",
    ) -> Span:
        context = TraceContext(trace.context.trace_id, trace_context.new_span_id())
        return Span(name, kind, context, trace.context, start_ns, end_ns, attributes, links, error)


def _messaging(system: str, operation: str, queue: str) -> Attributes:
    return {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
    }


@lru_cache(maxsize=4)
def _server(address: str) -> Attributes:
    # Of several hosts the first: which one leads a partition is not known here.
    parts = urlsplit(address.partition(",")[0])
    found: Attributes = {"server.address": parts.hostname or ""}
    return {**found, "server.port": parts.port} if parts.port else found


def _error_of(failure: Failure | None) -> tuple[str, str]:
    return ("", "") if failure is None else (failure.error_type, failure.error or failure.stage)


class TracedPreparation(Preparation):
    """Tells `tracing` of each try."""

    def __init__(self, inner: Preparation, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    def on_reader(self) -> Preparation:
        """See `Preparation`."""
        return TracedPreparation(self._inner.on_reader(), self._tracing)

    def begin(self, event: Event) -> Failure | None:
        """See `Preparation`."""
        failure = self._inner.begin(event)
        self._tracing.begin(event)
        return failure
