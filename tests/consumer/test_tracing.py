"""Spans of a consumer that replies, on the broker in process: what is tried again, dropped, unavailable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from infertool.brokers.memory.server import Server
from infertool.consumer import tracing
from infertool.errors import InferenceError, ModelUnavailableError
from infertool.telemetry.sampling import Sampler
from infertool.telemetry.spans import Span
from infertool.telemetry.trace_context import TraceContext, new, parse
from tests.consumer.harness import LONG, wait_until
from tests.consumer.service import QUEUE, Phoenix, Serve, answer, ask, settled


class Exporter:
    """Keeps the spans; takes only so many."""

    def __init__(self, *, room: int = 1000, share: float = 0.0) -> None:
        self.sampler = Sampler(share)
        self.spans: list[Span] = []
        self.refused = 0
        self.closed = False
        self._room = room

    def admits(self, count: int) -> bool:
        fits = len(self.spans) + count <= self._room
        self.refused += 0 if fits else count
        return fits

    def export(self, spans: Any) -> None:
        self.spans += spans

    def close(self, timeout_s: float) -> None:
        self.closed = True

    def names(self) -> list[str]:
        return [span.name.split(" ")[0] for span in self.spans]


def failing(*errors: Exception) -> Callable[[Any], Any]:
    """Return a model that raises each of `errors` once, then answers."""
    left = list(errors)

    def predict(payload: Any) -> Any:
        if left:
            raise left.pop(0)
        return payload

    return predict


@pytest.mark.parametrize(
    ("errors", "names", "failed"),
    [
        ([], ["process", "infer", "send", "settle"], []),
        ([ValueError("x")], ["process", "infer", "infer", "send", "settle"], ["infer"]),
        ([ModelUnavailableError("away", retry_after_s=0.001)] * 3,
         ["process", "infer", "infer", "infer", "infer", "send", "settle"], ["infer"] * 3),
        ([InferenceError("no", retryable=False)], ["process", "infer", "send", "settle"], ["process", "infer"]),
    ],
)  # fmt: skip
def test_each_call_of_the_model_is_a_span(
    server: Server, serve: Serve, errors: list[Exception], names: list[str], failed: list[str]
) -> None:
    exporter, own = Exporter(), new()
    service = serve(failing(*errors), spans=exporter)
    ask(server, b'{"a": 1}', headers={"traceparent": str(own)})
    reply = answer(server)
    settled(server)
    wait_until(lambda: len(exporter.spans) >= len(names))
    assert exporter.names() == names
    process, *others = exporter.spans
    assert process.parent == own
    assert process.links == [own]
    assert {span.parent for span in others} == {process.context}
    assert [span.name.split(" ")[0] for span in exporter.spans if span.error] == failed
    send = others[names.index("send") - 1]
    assert parse(reply.headers["traceparent"]) == send.context
    assert len({span.context for span in exporter.spans}) == len(names)
    assert all(span.start_ns <= span.end_ns for span in exporter.spans)
    service.end()
    assert exporter.closed


def test_a_request_that_has_expired_has_no_call(server: Server, serve: Serve) -> None:
    exporter = Exporter()
    serve(lambda payload: payload, spans=exporter)
    late = {"traceparent": str(new()), "deadline": str(time.time() - 1)}
    ask(server, b"{}", headers=late)
    assert answer(server).headers["status"] == "EXPIRED"
    wait_until(lambda: exporter.spans)
    assert exporter.names() == ["process", "send", "settle"]
    assert exporter.spans[0].attributes["error.type"] == "expired"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_events_without_a_trace_begin_one_where_the_sampler_says_so(server: Server, serve: Serve, share: float) -> None:
    exporter = Exporter(share=share)
    service = serve(lambda payload: payload, spans=exporter)
    for _ in range(20):
        ask(server, b"{}", reply_to=None)
    wait_until(lambda: service.counts["succeeded"] == 20)
    service.end()
    traces = {span.context.trace_id for span in exporter.spans}
    assert len(traces) == 20 * share
    assert {span.parent for span in exporter.spans if span.name == f"process {QUEUE}"} <= {None}


def test_spans_without_room_hold_nothing_up_and_none_is_made_of_half_an_event(server: Server, serve: Serve) -> None:
    exporter = Exporter(room=7)
    service = serve(lambda payload: payload, spans=exporter, publisher=Phoenix(), concurrency=1)
    for _ in range(10):
        ask(server, b"{}", reply_to=None, headers={"traceparent": str(new())})
    wait_until(lambda: service.counts["succeeded"] == 10)
    service.end()
    assert sorted(exporter.names()) == ["infer", "process", "send", "settle"]
    assert exporter.refused == 36


def test_a_redelivered_event_of_a_lost_connection_keeps_its_one_trace(server: Server, serve: Serve) -> None:
    exporter, own = Exporter(), new()
    arrived: list[object] = []
    go_on = threading.Event()

    def predict(payload: Any) -> Any:
        arrived.append(payload)
        assert go_on.wait(LONG)
        return payload

    service = serve(predict, spans=exporter)
    ask(server, b"{}", headers={"traceparent": str(own)})
    wait_until(lambda: arrived)
    service.address.faults.cut()
    wait_until(lambda: service.counts["recognised"] == 1)
    go_on.set()
    settled(server)
    wait_until(lambda: exporter.spans)
    assert exporter.names().count("process") == 1
    assert exporter.spans[0].parent == TraceContext(own.trace_id, own.span_id)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("stomp://a:61613", "a", 61613), ("kafka://a:9092,b:9093", "a", 9092), ("kafka://[::1]:1,[::2]:2", "::1", 1)],
)
def test_the_server_of_a_span_is_the_first_host(address: str, host: str, port: int) -> None:
    assert tracing._server(address) == {"server.address": host, "server.port": port}
