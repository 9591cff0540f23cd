"""Traces: one event from a JMS producer over the consumer to the hub, as an OTLP receiver gets its spans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infertool.telemetry.trace_context import TraceContext, new, parse
from tests.bus.conftest import Bus
from tests.js.dashboard import opened, wait
from tests.support.hub import HubProcess
from tests.support.jms import Jms, produce
from tests.support.otlp import Manner, Received, receiver
from tests.support.ports import free_port
from tests.support.running import CREDENTIALS, infertool

MODEL = """
from infertool.errors import InferenceError

class Model:
    def predict(self, payload):
        if payload["event_id"] == "fails":
            raise InferenceError("no such customer", retryable=False)
        return {"class": "A"}

    def predict_batch(self, payloads):
        failure = InferenceError("no such customer", retryable=False)
        return [failure if payload["event_id"] == "fails" else {} for payload in payloads]
"""
TRACED = {"INFERTOOL_TELEMETRY__TRACES": "otlp", "OTEL_TRACES_SAMPLER": "parentbased_always_off"}
NAMES = ("in-header", "in-payload", "fails", "unsampled")


def sent(bus: Bus) -> dict[str, TraceContext]:
    """Have a JMS producer send an event of each kind; return the spans that are its own."""
    own = {name: new(sampled=name != "unsampled") for name in NAMES}
    produce(bus.broker, [
        Jms(
            bus.queue,
            json.dumps({"event_id": name, **({"traceparent": str(own[name])} if name == "in-payload" else {})}),
            {} if name == "in-payload" else {"traceparent": str(own[name])},
        )
        for name in NAMES
    ] + [Jms(bus.queue, json.dumps({"event_id": "untraced"}), {"traceparent": "0" * 100_000})])  # fmt: skip
    return own


ONE_BY_ONE = ("--batch-size", "1")
MODES = {
    "threads": ONE_BY_ONE,
    "processes": ("--executor", "processes", "--workers", "1", *ONE_BY_ONE),
    "batch": ("--batch-size", "5", "--batch-wait", "60s"),
    "several": ("--processes", "2", *ONE_BY_ONE),
    "link": ONE_BY_ONE,
}


@pytest.mark.activemq
@pytest.mark.parametrize("mode", MODES)
def test_an_event_goes_on_in_the_trace_of_its_jms_producer(real_bus: Bus, mode: str) -> None:
    (real_bus.folder / "model.py").write_text(MODEL)
    own = sent(real_bus)
    with receiver() as traces:
        consumer = real_bus.consume(
            *MODES[mode], "--exit-when-idle", "2s", model=f"{real_bus.folder / 'model.py'}:Model",
            INFERTOOL_TELEMETRY__TRACE_PARENT="link" if mode == "link" else "parent",
            OTEL_EXPORTER_OTLP_ENDPOINT=traces.url, **TRACED,
        )  # fmt: skip
        summary = consumer.finish()
        assert (summary["succeeded"], summary["dead_lettered"]) == (4, 1)
        assert (summary["traces_ignored"], summary["spans_dropped"]) == (1, 0)
        queue = real_bus.queue.removeprefix("/queue/")
        assert real_bus.viewer.wait(5, 60)
        letters = {headers["dlq_event_id"]: headers for headers, _ in real_bus.drain(real_bus.dlq)}
        processes = {
            span.attributes.get("infertool.event_id", ""): span for span in traces.spans if span.kind == "CONSUMER"
        }
        assert processes.keys() == {"in-header", "in-payload", "fails"}
        for name, process in processes.items():
            spans = traces.of(process.trace_id)
            check_tree(spans, own[name], linked=mode == "link")
            model = spans["infer"].attributes["infertool.model"]
            names = {f"process {queue}", f"infer {model}", "send service:inference", f"settle {queue}"}
            assert {span.name for span in spans.values()} == names
            assert {span.service for span in spans.values()} == {"infertool"}
            published = real_bus.viewer.payloads[name]["traceparent"]
            assert parse(published) == TraceContext(process.trace_id, spans["send"].span_id)
            dead = name == "fails"
            assert [process.failed, spans["infer"].failed] == [dead, dead]
            assert spans["settle"].attributes["infertool.outcome"] == ("dead_letter" if dead else "ack")
            if dead:
                assert process.attributes["error.type"] == "InferenceError"
                assert parse(letters[name]["original_traceparent"]) == context(process)
        assert real_bus.viewer.payloads["unsampled"]["traceparent"] == str(own["unsampled"])
        assert "traceparent" not in real_bus.viewer.payloads["untraced"]
        batches = [span for span in traces.spans if span.name.startswith("infer") and not span.parent]
        if mode == "batch":
            assert {link for span in batches for link in span.links} == {ids(each) for each in processes.values()}
            calls = [traces.of(each.trace_id)["infer"] for each in processes.values()]
            assert {link for call in calls for link in call.links} == {ids(span) for span in batches}
        else:
            assert batches == []


def context(span: Received) -> TraceContext:
    return TraceContext(*ids(span))


def ids(span: Received) -> tuple[str, str]:
    return span.trace_id, span.span_id


def check_tree(
    spans: dict[str, Received], parent: TraceContext, *, linked: bool = False, system: str = "activemq"
) -> None:
    process = spans["process"]
    assert (parent.trace_id, parent.span_id) in process.links
    assert (process.trace_id == parent.trace_id, process.parent) == (
        (False, "") if linked else (True, parent.span_id)
    )  # fmt: skip
    kinds = {"process": "CONSUMER", "infer": "INTERNAL", "send": "PRODUCER", "settle": "CLIENT"}
    assert {name: span.kind for name, span in spans.items()} == kinds
    for name in ("infer", "send", "settle"):
        assert spans[name].parent == process.span_id
        assert process.start_ns <= spans[name].start_ns <= spans[name].end_ns <= process.end_ns
    assert process.attributes.items() >= {
        "messaging.system": system, "messaging.operation.name": "process", "messaging.operation.type": "process",
        "server.address": "127.0.0.1",
    }.items()  # fmt: skip


def test_a_replay_keeps_the_trace_and_links_to_the_first_try(bus: Bus) -> None:
    (bus.folder / "model.py").write_text(MODEL)
    own = new()
    raw = bus.raw()
    raw.send(bus.queue, [({"event_id": "fails", "traceparent": str(own)}, b'{"event_id": "fails"}')])
    raw.close()
    with receiver() as traces:
        for turn in (1, 2):
            consumer = bus.consume(
                "--exit-when-idle", "1s", model=f"{bus.folder / 'model.py'}:Model",
                OTEL_EXPORTER_OTLP_ENDPOINT=traces.url, **TRACED,
            )  # fmt: skip
            assert consumer.finish()["dead_lettered"] == 1
            if turn == 1:
                done = infertool("replay-dlq", bus.dlq, "--broker", bus.broker.url, "--yes", **CREDENTIALS)
                assert done.returncode == 0, done.stderr
        first, second = (span for span in traces.spans if span.kind == "CONSUMER")
        assert {first.trace_id, second.trace_id} == {own.trace_id}
        assert first.links == {(own.trace_id, own.span_id)}
        assert second.links == {(own.trace_id, own.span_id), ids(first)}


@pytest.mark.activemq
@pytest.mark.browser
def test_a_trace_ends_on_the_screen_of_the_dashboard(real_bus: Bus, tmp_path: Path) -> None:
    own = new()
    produce(real_bus.broker, [
        Jms(real_bus.queue, '{"event_id": "shown", "features": [1]}', {"traceparent": str(own)}),
        Jms(real_bus.queue, '{"event_id": "other", "features": [1]}', {"traceparent": str(new(sampled=False))}),
    ])  # fmt: skip
    with receiver() as traces, HubProcess(0, "", "--traces", OTEL_EXPORTER_OTLP_ENDPOINT=traces.url) as hub:
        with opened(hub.http_url, tmp_path / "profile") as page:
            real_bus.hub = hub
            env = {**TRACED, "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
            assert real_bus.consume("--max-messages", "2", **env).finish()["succeeded"] == 2
            wait(page, "#results-total", "2")
            spans = traces.wait("seen public:results")
            page.send("errors")
            assert page.wait_for("errors")["messages"] == []
        assert {span.trace_id for span in spans} == {own.trace_id}
        by_name = traces.of(own.trace_id)
        assert by_name.keys() == {"process", "infer", "send", "settle", "seen"}
        seen, send = by_name["seen"], by_name["send"]
        assert (seen.parent, seen.kind, seen.service) == (send.span_id, "CONSUMER", "infertool-dashboard")
        assert seen.attributes["infertool.event_id"] == "shown"
        assert send.start_ns <= seen.start_ns <= seen.end_ns


@pytest.mark.parametrize("processes", ["1", "2"])
def test_loadgen_begins_traces_that_the_consumer_goes_on_with(embedded_bus: Bus, processes: str) -> None:
    count = 200
    with receiver() as traces:
        env = {**TRACED, "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
        run = infertool(
            "loadgen", "--broker", embedded_bus.broker.url, "--queue", embedded_bus.queue, "--qps", "2000",
            "--count", f"{count}", "--trace", "30%", "--processes", processes, "-o", "json", **CREDENTIALS, **env,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert embedded_bus.consume("--max-messages", f"{count}", **env).finish()["succeeded"] == count
        roots = [span for span in traces.spans if span.service == "infertool-loadgen"]
        assert 0 < len(roots) < count
        assert {(span.name, span.kind, span.parent) for span in roots} == {
            (f"send {embedded_bus.queue.removeprefix('/queue/')}", "PRODUCER", "")
        }  # fmt: skip
        began = {span.trace_id: span.span_id for span in roots}
        assert len(began) == len(roots)
        processed = {span.trace_id: span.parent for span in traces.spans if span.kind == "CONSUMER"}
        assert processed == began


@pytest.mark.parametrize("manner", ["hangs", "fails", "refuses"])
def test_an_endpoint_that_does_not_take_spans_holds_nothing_up(bus: Bus, manner: Manner | str) -> None:
    count = 300
    bus.send(count)
    with receiver("hangs" if manner == "hangs" else "fails") as traces:
        url = f"http://127.0.0.1:{free_port()}" if manner == "refuses" else traces.url
        consumer = bus.consume(
            "--max-messages", f"{count}", INFERTOOL_TELEMETRY__TRACES="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=url,
            OTEL_BSP_MAX_QUEUE_SIZE="600",
        )  # fmt: skip
        summary = consumer.finish()
    assert summary["succeeded"] == count
    assert summary["spans_dropped"] == 4 * count
    log = consumer.log.read_text()
    assert log.count("traces are incomplete") == 1
    assert "Traceback" not in log
    assert all(line.count("opentelemetry") == 0 for line in log.splitlines())
