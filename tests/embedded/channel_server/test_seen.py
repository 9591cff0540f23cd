"""The `seen` events of dashboards: whatever comes is answered, and makes a span only for a recorded trace."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from infertool.embedded.channel_server.channels import OK, Channel, Reply
from infertool.embedded.channel_server.seen import SeenEvents
from infertool.embedded.channel_server.server import handle_public, join_public
from infertool.telemetry.spans import Span
from infertool.telemetry.trace_context import new, parse
from tests.support.present import present

GOOD = str(new())


# All that a handler of `seen` looks at.
TOPIC = cast("Channel", SimpleNamespace(topic="public:results"))


def seen_events(spans: list[Span]) -> SeenEvents:
    return SeenEvents(spans.extend, join_public, handle_public)


@pytest.mark.parametrize(
    "payload",
    [
        None, [], "x", b"x", {}, {"traceparent": 7}, {"traceparent": "x" * 1_000_000},
        {"traceparent": str(new(sampled=False))}, {"traceparent": {"traceparent": GOOD}},
    ],
)  # fmt: skip
def test_what_is_no_recorded_trace_makes_no_span(payload: object) -> None:
    spans: list[Span] = []
    assert seen_events(spans).handle(TOPIC, "seen", payload) == OK
    assert spans == []


@pytest.mark.parametrize(
    ("after_ms", "lasted_ms"),
    [(12.5, 12.5), (0, 0), (None, 0), (-1, 0), (1e9, 0), (float("nan"), 0), (float("inf"), 0), ("5", 0), (10**400, 0)],
)
def test_a_span_lasts_from_the_arrival_to_the_screen(after_ms: object, lasted_ms: float) -> None:
    spans: list[Span] = []
    payload = {"traceparent": GOOD, "after_ms": after_ms, "event_id": "e" * 1000}
    assert seen_events(spans).handle(TOPIC, "seen", payload) == OK
    (span,) = spans
    assert span.parent == parse(GOOD)
    assert span.context.trace_id == present(parse(GOOD)).trace_id
    assert span.end_ns - span.start_ns == lasted_ms * 1e6
    assert len(str(span.attributes["infertool.event_id"])) == 200


def test_all_else_is_as_without_traces() -> None:
    events = seen_events([])
    assert events.handle(TOPIC, "new_result", {}) == Reply({"reason": "read_only"}, status="error")
    assert events.join(TOPIC, {}) == {"seen": True}
