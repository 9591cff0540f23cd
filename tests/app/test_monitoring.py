"""Metrics and stats of running consumers; a real Prometheus scrapes them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from infertool.app import ConsumerApp
from infertool.app.monitoring import Monitor, scale
from infertool.consumer.tuning import BATCH_CALLS, SINGLE_CALLS
from infertool.settings.tree import TelemetrySettings
from infertool.telemetry.metrics import DEFINITIONS
from infertool.telemetry.stats_document import (
    DeadLetterStats,
    LatencyStats,
    ModelStats,
    Quantiles,
    QueueStats,
    RateStats,
    StatsDocument,
    WindowStats,
)
from tests.app.endpoint import app_of, url_of
from tests.app.test_embedding import settings_of, wait_for
from tests.bus.conftest import Bus
from tests.bus.test_traces import TRACED
from tests.support.otlp import receiver
from tests.support.prometheus import Prometheus, fetch, fetch_json, promtool
from tests.support.running import LONG, infertool

VERSIONED = f"{Path(__file__).parent / 'models_for_metrics.py'}:Batched"


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.prometheus
@pytest.mark.parametrize(
    "options",
    [(), ("--executor", "processes", "--workers", "2"), ("--processes", "2", "--concurrency", "2"),
     ("--batch-size", "8", "--model", VERSIONED)],
    ids=["threads", "workers", "replicas", "batches"],
)  # fmt: skip
def test_prometheus_sees_what_the_summary_says(embedded_bus: Bus, tmp_path: Path, options: tuple[str, ...]) -> None:
    bus = embedded_bus
    consumer = bus.consume("--metrics", "0", *options)
    url = url_of(consumer)
    with Prometheus(tmp_path / "prometheus", [url.removeprefix("http://")]) as prometheus:
        prometheus.wait_for("infertool_ready", lambda value: value == 1)
        bus.send(300, poison=30)
        prometheus.wait_for("sum(infertool_messages_settled_total)", lambda value: value == 300)
        # A replica's last report may be under way.
        prometheus.wait_for("sum(infertool_event_duration_seconds_count)", lambda value: value == 300)
        found = {name: prometheus.wait_for(f"sum(infertool_{name})", lambda _: True) for name in (
            "messages_received_total", "inference_duration_seconds_count", "failures_total", "retries_total",
            "publish_confirm_seconds_count",
        )}  # fmt: skip
        outcomes = {labels["outcome"]: value for labels, value in prometheus.some("infertool_messages_settled_total")}
        failures = prometheus.some("infertool_failures_total")
        checked = promtool("check", "metrics", text=fetch(f"{url}/metrics")[1])
        consumer.terminate()
        summary = consumer.finish()
    # They are sampled.
    assert 0 < found.pop("publish_confirm_seconds_count") <= summary["confirmed"]
    assert found == {
        "messages_received_total": summary["received"], "inference_duration_seconds_count": 270,
        "failures_total": summary["failed"], "retries_total": summary["retried"],
    }  # fmt: skip
    assert outcomes == {name: summary[name] for name in outcomes}
    assert [(labels["stage"], value) for labels, value in failures] == [("decode", 30)]
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "version"),
    [
        (("--model", VERSIONED), "2026.11"),
        (("--model", VERSIONED, "--executor", "processes", "--workers", "2"), "2026.11"),
        (("--model", VERSIONED, "--processes", "2"), "2026.11"),
        ((), ""),
    ],
    ids=["threads", "workers", "replicas", "none"],
)
def test_the_version_of_the_model(embedded_bus: Bus, options: tuple[str, ...], version: str) -> None:
    consumer = embedded_bus.consume("--metrics", "0", *options)
    url = url_of(consumer)
    embedded_bus.send(10)
    wait_for(lambda: fetch_json(f"{url}/stats")["counts"]["succeeded"] >= 10)
    wait_for(lambda: fetch_json(f"{url}/stats")["model"]["version"] == version)
    labels = [dict(labels) for (name, labels) in samples(fetch(f"{url}/metrics")[1]) if name in {
        "infertool_model_info", "infertool_inference_duration_seconds_count",
    }]  # fmt: skip
    assert [each["model_version"] for each in labels] == [version] * 2
    consumer.terminate()
    consumer.finish()


def more_than(least: float) -> Callable[[float], bool]:
    return lambda value: value > least


@pytest.mark.prometheus
def test_counters_never_go_back_when_replicas_are_killed(embedded_bus: Bus, tmp_path: Path) -> None:
    bus = embedded_bus
    bus.lost_count = True
    consumer = bus.consume("--metrics", "0", "--processes", "2", "--concurrency", "2")
    url = url_of(consumer)
    with Prometheus(tmp_path / "prometheus", [url.removeprefix("http://")]) as prometheus:
        settled = 0.0
        for killed in range(2):
            prometheus.wait_for("infertool_ready", lambda value: value == 1)
            bus.send(100)
            settled = prometheus.wait_for("sum(infertool_messages_settled_total)", more_than(settled + 50))
            children = psutil.Process(consumer.process.pid).children()
            children[killed % len(children)].kill()
        consumer.wait_for("another starts in", times=2)
        bus.send(100)
        settled = prometheus.wait_for("sum(infertool_messages_settled_total)", more_than(settled + 99))
        for name in ("messages_settled_total", "messages_received_total", "event_duration_seconds_count"):
            resets = prometheus.query(f"resets(infertool_{name}[1h])")
            assert resets
            assert [value for _, value in resets] == [0.0] * len(resets)
        consumer.terminate()
        summary = consumer.finish()
    assert summary["succeeded"] >= settled


def test_openmetrics_and_stats_can_be_read(embedded_bus: Bus) -> None:
    with app_of(embedded_bus) as (app, url):
        app.start()
        embedded_bus.send(20, poison=5)
        wait_for(lambda: app.snapshot().settled == 20)
        status, text = fetch(f"{url}/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert status == 200
        assert text.endswith("# EOF\n")
        names = {family.name for family in read_openmetrics(text)}
        known = {f"{each.prefix}{each.name}" for each in DEFINITIONS.values()}
        assert names <= known
        assert {"infertool_messages_settled", "infertool_event_age_seconds", "process_cpu_seconds"} <= names
        document = fetch_json(f"{url}/stats")
        wait_for(lambda: fetch_json(f"{url}/stats")["counts"]["succeeded"] == 15)
        assert document["queue"]["name"] == embedded_bus.queue.removeprefix("/queue/")
        with urllib.request.urlopen(f"{url}/stats/stream", timeout=LONG) as stream:
            events = [stream.readline() for _ in range(6)]
        assert events[0::3] == [b"event: stats\n"] * 2
        first, second = (json.loads(line.removeprefix(b"data: ")) for line in events[1::3])
        assert second["time"] > first["time"]


@pytest.mark.prometheus
def test_exemplars_lead_from_a_latency_to_its_trace(embedded_bus: Bus, tmp_path: Path) -> None:
    with receiver() as traces:
        consumer = embedded_bus.consume("--metrics", "0", OTEL_EXPORTER_OTLP_ENDPOINT=traces.url, **TRACED)
        url = url_of(consumer)
        with Prometheus(tmp_path / "prometheus", [url.removeprefix("http://")]) as prometheus:
            raw = embedded_bus.raw()
            parents = [f"{number:032x}" for number in range(1, 6)]
            raw.send(embedded_bus.queue, [({"traceparent": f"00-{each}-{1:016x}-01"}, b"{}") for each in parents])
            raw.close()
            wait_for(lambda: prometheus.exemplars("infertool_event_duration_seconds_bucket"))
            found = prometheus.exemplars("infertool_event_duration_seconds_bucket")
        assert {each["trace_id"] for each in found} <= set(parents)
        consumer.terminate()
        consumer.finish()
        assert {each["trace_id"] for each in found} <= {span.trace_id for span in traces.spans}


@pytest.mark.parametrize("value", ["x", "99999", "host:", "1.2.3.4:x", "a b:1", "[::1:5", "http://127.0.0.1:9"])
def test_an_address_that_is_none_is_refused(value: str) -> None:
    done = infertool("consume", "--metrics", value)
    assert (done.returncode, done.stdout) == (2, "")
    assert "telemetry.metrics cannot be used" in done.stderr


def test_a_port_in_use_ends_the_consumer_before_it_takes_anything(embedded_bus: Bus) -> None:
    with app_of(embedded_bus) as (_app, url):
        port = url.rpartition(":")[2]
        consumer = embedded_bus.consume("--metrics", port)
        _, _ = consumer.process.communicate(timeout=LONG)
    assert consumer.process.returncode == 3
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in consumer.log.read_text()


def document(**changes: Any) -> StatsDocument:
    """Return a document of a consumer with 16 calls of 0.5 s: 32 events a second."""
    latency = LatencyStats(inference=Quantiles(p50_ms=500.0, count=100))
    well = StatsDocument(
        time=0, started=0, uptime_s=0, version="", consumer="", latency=latency, queue=QueueStats(name="q"),
        dlq=DeadLetterStats(name="d"), model=ModelStats(name="m"), window=WindowStats(limit=200),
    )  # fmt: skip
    return replace(well, **changes)


def queue(**figures: Any) -> QueueStats:
    return QueueStats(name="q", **figures)


@pytest.mark.parametrize(
    ("found", "target_s", "desired"),
    [
        (document(), 30, 0),
        (document(queue=queue(depth=0, unacked=0, arrival_rate=0.0)), 30, 0),
        (document(queue=queue(depth=0, unacked=1, arrival_rate=0.0)), 30, 1),
        (document(queue=queue(depth=1, unacked=0, arrival_rate=0.0)), 30, 1),
        (document(queue=queue(depth=960, unacked=200, arrival_rate=0.0)), 30, 1),
        (document(queue=queue(depth=970, unacked=200, arrival_rate=0.0)), 30, 2),
        (document(queue=queue(depth=960, unacked=200, arrival_rate=32.0)), 30, 2),
        (document(queue=queue(depth=960, unacked=200, arrival_rate=32.0)), 15, 3),
        # Three consumers hold messages: none is sent away while it works.
        (document(queue=queue(depth=0, unacked=600, arrival_rate=1.0)), 30, 3),
        # The broker tells no arrivals: what was received stands for them.
        (document(queue=queue(depth=0, unacked=10), rate=RateStats(received=64.0)), 30, 2),
        # A full window: the rate tells the time of an event, whatever the model says.
        (document(queue=queue(depth=960, unacked=200, arrival_rate=0.0), rate=RateStats(settled=8.0),
                  window=WindowStats(in_progress=200, limit=200)), 30, 4),
        # Nothing was measured so far.
        (document(queue=queue(depth=5000, unacked=0, arrival_rate=9.0), latency=LatencyStats()), 30, 1),
    ],
)  # fmt: skip
def test_how_many_consumers_a_backlog_needs(found: StatsDocument, target_s: float, desired: int) -> None:
    answer = scale(found, target_s, calls=16)
    assert answer["desired"] == desired
    assert set(answer) >= {"desired", "backlog", "unacked", "service_s", "drain_s"}


def test_events_that_share_a_call_share_its_time() -> None:
    """Two calls of 0.5 s for 64 events each: 256 events a second."""
    found = document(queue=queue(depth=0, unacked=0, arrival_rate=300.0))
    assert scale(found, 30, calls=2, events_a_call=64)["desired"] == 2


def test_scale_of_a_model_in_batches(embedded_bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "batches.py").write_text("""
import time

class Model:
    def predict(self, payload):
        return {}

    def predict_batch(self, payloads):
        time.sleep(0.2)
        return [{} for _ in payloads]
""")
    with app_of(embedded_bus, model=f"{tmp_path}/batches.py:Model", mode="none") as (app, url):
        app.start()
        embedded_bus.send(200)
        wait_for(lambda: app.snapshot().settled == 200)
        wait_for(lambda: (fetch_json(f"{url}/scale")["service_s"] or 1.0) < 0.1)


def test_the_calls_at_a_time_are_those_of_a_model_in_batches(embedded_bus: Bus) -> None:
    """Whether a model takes batches is known once it does."""
    settings = settings_of(embedded_bus)
    monitor = Monitor(settings, ConsumerApp(settings), listens=False)
    assert monitor._calls(document()) == SINGLE_CALLS
    assert monitor._calls(document(model=ModelStats(name="m", batch_size=8))) == BATCH_CALLS


def test_scale_answers_over_http(embedded_bus: Bus) -> None:
    with app_of(embedded_bus) as (_app, url):
        assert fetch_json(f"{url}/scale?target=30s")["target_s"] == 30
        assert fetch_json(f"{url}/scale")["desired"] == 0
        status, text = fetch(f"{url}/scale?target=soon")
        assert (status, "is not a duration" in text) == (400, True)


def test_many_scrapes_hold_nothing_up(embedded_bus: Bus) -> None:
    with app_of(embedded_bus) as (app, url):
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        stop = threading.Event()
        answers: list[int] = []

        def scrape() -> None:
            while not stop.is_set():
                answers.append(fetch(f"{url}/metrics")[0])

        scrapers = [threading.Thread(target=scrape) for _ in range(4)]
        for scraper in scrapers:
            scraper.start()
        embedded_bus.send(300)
        wait_for(lambda: app.snapshot().settled == 300 and len(answers) > 100)
        stop.set()
        for scraper in scrapers:
            scraper.join(LONG)
    assert set(answers) == {200}


def test_without_metrics_nothing_of_it_is_imported() -> None:
    script = (
        "import sys\nfrom infertool.cli.consume import run\n"
        "sys.exit(sum(name in sys.modules for name in ('prometheus_client',)))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=LONG).returncode == 0


def test_a_monitor_needs_no_consumer_to_have_run(embedded_bus: Bus) -> None:
    settings = replace(settings_of(embedded_bus), telemetry=TelemetrySettings(metrics="0"))
    app = ConsumerApp(settings)
    monitor = Monitor(settings, app)
    assert monitor.document().counts["received"] == 0
    monitor.close()
    app.close()
