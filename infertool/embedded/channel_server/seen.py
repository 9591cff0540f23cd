"""The event `seen`, by which a dashboard says that a recorded event is on its screen: the last span of its trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from infertool.embedded.channel_server.channels import OK, Answer, Channel, EventHandler, JoinHandler
from infertool.telemetry.spans import Kind, Span
from infertool.telemetry.trace_context import TRACEPARENT, TraceContext, new_span_id, parse

SEEN: Final = "seen"
# Longest time from arrival to screen that is believed. Milliseconds.
_LONGEST_MS: Final = 60_000.0
_LONGEST_ID: Final = 200


class SeenEvents:
    """Makes a span `seen TOPIC` of each `seen` event on the topics of `join` and `handle`; all else is left to those.

    It lasts from the arrival at the page until the server knows that it was drawn, by this machine's clock alone.
    """

    def __init__(self, export: Callable[[Sequence[Span]], None], join: JoinHandler, handle: EventHandler) -> None:
        self._export = export
        self._join = join
        self._handle = handle

    def join(self, channel: Channel, params: object) -> dict[str, Any]:
        """Accept a socket, and ask it for `seen` events."""
        return {**self._join(channel, params), SEEN: True}

    def handle(self, channel: Channel, event: str, payload: object) -> Answer:
        """Take an event. What is no `seen` event of a recorded trace is ignored."""
        if event != SEEN:
            return self._handle(channel, event, payload)
        context = parse(payload.get(TRACEPARENT)) if isinstance(payload, dict) else None
        if isinstance(payload, dict) and context is not None and context.sampled:
            self._export([_span(channel.topic, context, payload)])
        return OK


def _span(topic: str, parent: TraceContext, payload: dict[str, Any]) -> Span:
    after_ms = payload.get("after_ms")
    believed = isinstance(after_ms, int | float) and 0 <= after_ms <= _LONGEST_MS
    end_ns = time.time_ns()
    start_ns = end_ns - round(after_ms * 1e6) if believed and after_ms else end_ns
    attributes: dict[str, str | int | float | bool] = {
        "messaging.system": "phoenix",
        "messaging.operation.name": SEEN,
        "messaging.destination.name": topic,
    }
    if isinstance(event_id := payload.get("event_id"), str):
        attributes["infertool.event_id"] = event_id[:_LONGEST_ID]
    context = TraceContext(parent.trace_id, new_span_id())
    return Span(f"{SEEN} {topic}", Kind.CONSUMER, context, parent, start_ns, end_ns, attributes)
