"""Traces over RabbitMQ by AMQP, and over Artemis: as over ActiveMQ, from the producer to the hub and to the replay."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pika
import pytest

from infertool.telemetry.trace_context import TraceContext, new, parse
from tests.bus.test_traces import MODEL, TRACED, check_tree, context, ids
from tests.support.artemis import Artemis
from tests.support.brokers import is_empty
from tests.support.hub import HubProcess
from tests.support.otlp import receiver
from tests.support.rabbitmq import RabbitMQ
from tests.support.running import CREDENTIALS, LONG, Running, infertool
from tests.support.viewer import Viewer

Event = tuple[dict[str, Any], dict[str, str]]


class Place(Protocol):
    """A queue and its dead-letter queue on a broker."""

    url: str
    system: str
    queue: str
    dlq: str

    def send(self, events: list[Event]) -> None:
        """Send (payload, headers), as another program does."""

    def letters(self) -> dict[str, dict[str, Any]]:
        """Empty the dead-letter queue; return the headers by event id."""


class OverAmqp:
    """Durable queues of RabbitMQ, and pika as the producer: instrumentation of AMQP writes the header `traceparent`."""

    system = "rabbitmq"

    def __init__(self, broker: RabbitMQ) -> None:
        self.url = broker.amqp_url
        self._broker = broker
        self.queue = f"traces.{uuid.uuid4().hex[:6]}"
        self.dlq = f"{self.queue}.dead"
        with broker.pika() as channel:
            for queue in (self.queue, self.dlq):
                channel.queue_declare(queue, durable=True)

    def send(self, events: list[Event]) -> None:
        with self._broker.pika() as channel:
            channel.confirm_delivery()
            for payload, headers in events:
                properties = pika.BasicProperties(delivery_mode=2, headers=headers)
                channel.basic_publish("", self.queue, json.dumps(payload).encode(), properties)

    def letters(self) -> dict[str, dict[str, Any]]:
        found = {}
        with self._broker.pika() as channel:
            while (got := channel.basic_get(self.dlq, auto_ack=True))[0] is not None:
                headers = got[1].headers
                found[headers["dlq_event_id"]] = headers
        return found


class OverArtemis:
    """Addresses of Artemis."""

    system = "activemq"

    def __init__(self, broker: Artemis) -> None:
        self.url = broker.url
        self._broker = broker
        self.queue = f"/queue/traces.{uuid.uuid4().hex[:6]}"
        self.dlq = f"{self.queue}.dead"

    def send(self, events: list[Event]) -> None:
        raw = self._broker.raw()
        raw.send(self.queue, [(headers, json.dumps(payload).encode()) for payload, headers in events])
        raw.close()

    def letters(self) -> dict[str, dict[str, Any]]:
        raw = self._broker.raw()
        found = {
            headers["dlq_event_id"]: headers
            for headers, _ in raw.drain(self.dlq, is_empty=lambda: is_empty(self._broker, self.dlq))
        }
        raw.close()
        return found


PLACES: dict[str, Callable[[Any], Place]] = {"rabbitmq": OverAmqp, "artemis": OverArtemis}


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in PLACES])
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request.getfixturevalue(request.param))


@pytest.fixture
def viewer(session_hub: HubProcess) -> Iterator[Viewer]:
    viewer = Viewer(session_hub.url)
    yield viewer
    viewer.close()


def consumed(place: Place, hub: HubProcess, folder: Path, endpoint: str, *options: str) -> dict[str, Any]:
    """Consume until the queue is empty; return the summary."""
    (folder / "model.py").write_text(MODEL)
    consumer = Running(
        folder / "consumers", "consume", "--broker", place.url, "--queue", place.queue, "--dlq", place.dlq,
        "--phoenix", hub.url, "--model", f"{folder / 'model.py'}:Model", "--exit-when-idle", "2s", "-o", "json",
        *options,
        **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(folder / "state"),
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **TRACED,
    )  # fmt: skip
    return consumer.finish()


@pytest.mark.parametrize(
    "options",
    [(), ("--executor", "processes", "--workers", "1"), ("--batch-size", "4", "--batch-wait", "60s")],
    ids=["threads", "processes", "batch"],
)
def test_an_event_goes_on_in_the_trace_of_its_producer(
    place: Place, session_hub: HubProcess, viewer: Viewer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    own: dict[str, TraceContext] = {
        name: new(sampled=name != "unsampled") for name in ("header", "payload", "fails", "unsampled")
    }
    place.send([
        ({"event_id": name, **({"traceparent": str(own[name])} if name == "payload" else {})},
         {} if name == "payload" else {"traceparent": str(own[name])})
        for name in own
    ])  # fmt: skip
    with receiver() as traces:
        summary = consumed(place, session_hub, tmp_path, traces.url, *options)
        assert (summary["succeeded"], summary["dead_lettered"], summary["spans_dropped"]) == (3, 1, 0)
        assert viewer.wait(4, LONG)
        letters = place.letters()
        processes = {
            span.attributes.get("infertool.event_id", ""): span for span in traces.spans if span.kind == "CONSUMER"
        }
        assert processes.keys() == {"header", "payload", "fails"}
        for name, process in processes.items():
            spans = traces.of(process.trace_id)
            check_tree(spans, own[name], system=place.system)
            queue = place.queue.removeprefix("/queue/")
            assert {f"process {queue}", f"settle {queue}"} <= {span.name for span in spans.values()}
            assert parse(viewer.payloads[name]["traceparent"]) == TraceContext(process.trace_id, spans["send"].span_id)
            outcome = "dead_letter" if name == "fails" else "ack"
            assert spans["settle"].attributes["infertool.outcome"] == outcome
        assert parse(letters["fails"]["original_traceparent"]) == context(processes["fails"])
        assert viewer.payloads["unsampled"]["traceparent"] == str(own["unsampled"])


def test_a_replay_keeps_the_trace_and_links_to_the_first_try(
    place: Place, session_hub: HubProcess, tmp_path: Path
) -> None:
    own = new()
    place.send([({"event_id": "fails"}, {"traceparent": str(own)})])
    with receiver() as traces:
        assert consumed(place, session_hub, tmp_path, traces.url)["dead_lettered"] == 1
        done = infertool("replay-dlq", place.dlq, "--broker", place.url, "--yes", **CREDENTIALS)
        assert done.returncode == 0, done.stderr
        assert consumed(place, session_hub, tmp_path, traces.url)["dead_lettered"] == 1
        first, second = (span for span in traces.spans if span.kind == "CONSUMER")
    assert {first.trace_id, second.trace_id} == {own.trace_id}
    assert first.links == {(own.trace_id, own.span_id)}
    assert second.links == {(own.trace_id, own.span_id), ids(first)}
