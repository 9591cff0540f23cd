"""Metrics, health and stats of running consumers; a real Prometheus scrapes them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from infertool.app import ConsumerApp, PublishSettings
from infertool.app.monitoring import Monitor, monitored, scale
from infertool.settings.tree import TelemetrySettings
from infertool.telemetry import health
from infertool.telemetry.metrics import DEFINITIONS
from infertool.telemetry.signals import Received, Signal
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
from tests.app.test_embedding import settings_of, wait_for
from tests.bus.conftest import Bus
from tests.bus.test_traces import TRACED
from tests.support.hub import HubProcess
from tests.support.otlp import receiver
from tests.support.prometheus import Prometheus, fetch, fetch_json, promtool
from tests.support.running import LONG, Running, infertool


def url_of(consumer: Running) -> str:
    """Return the endpoint's URL, from the line that `-o json` prints first."""
    assert consumer.process.stdout
    ready = json.loads(consumer.process.stdout.readline())
    assert ready["event"] == "metrics"
    return str(ready["url"])


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
     ("--batch-size", "8", "--model", f"{Path(__file__).parent / 'models_for_metrics.py'}:Batched")],
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
        found = {name: prometheus.value(f"sum(infertool_{name})") for name in (
            "messages_received_total", "inference_duration_seconds_count", "failures_total", "retries_total",
            "publish_confirm_seconds_count",
        )}  # fmt: skip
        outcomes = {labels["outcome"]: value for labels, value in prometheus.query("infertool_messages_settled_total")}
        failures = prometheus.query("infertool_failures_total")
        checked = promtool("check", "metrics", text=fetch(f"{url}/metrics")[1])
        consumer.terminate()
        summary = consumer.finish()
    assert found == {
        "messages_received_total": summary["received"], "inference_duration_seconds_count": 270,
        "failures_total": summary["failed"], "retries_total": summary["retried"],
        "publish_confirm_seconds_count": summary["confirmed"],
    }  # fmt: skip
    assert outcomes == {name: summary[name] for name in outcomes}
    assert [(labels["stage"], value) for labels, value in failures] == [("decode", 30)]
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


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


@contextmanager
def app_of(
    bus: Bus, observe: Callable[[Signal], None] | None = None, **changes: Any
) -> Iterator[tuple[ConsumerApp, str]]:
    """Run a consumer in this process, and yield it with the URL of its endpoint."""
    telemetry = TelemetrySettings(metrics="127.0.0.1:0", stuck_after_s=changes.pop("stuck_after_s", 300.0))
    publish = PublishSettings(mode=changes.pop("mode", "phoenix"))
    model = changes.pop("model", "")
    settings = replace(settings_of(bus, **changes), telemetry=telemetry, publish=publish)
    if model:
        settings = replace(settings, model=replace(settings.model, spec=model))
    app = ConsumerApp(settings, observers=[observe] if observe else ())
    with monitored(settings, app) as monitor:
        assert monitor is not None
        with app:
            yield app, f"http://{monitor.address}"


def conditions(url: str) -> dict[str, bool]:
    return {each["name"]: each["ok"] for each in fetch_json(url + "?verbose")["conditions"]}


def test_a_consumer_is_live_then_ready_then_started(embedded_bus: Bus) -> None:
    with app_of(embedded_bus) as (app, url):
        assert fetch(f"{url}/livez") == (200, "ok\n")
        assert fetch(f"{url}/readyz")[0] == 503
        assert fetch(f"{url}/startupz")[0] == 503
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz") == (200, "ok\n"))
        assert fetch(f"{url}/startupz") == (200, "ok\n")
        assert conditions(f"{url}/readyz") == dict.fromkeys(("broker", "phoenix", "model", "stopping"), True)
        app.stop()
        assert fetch(f"{url}/readyz")[0] == 503
        assert fetch(f"{url}/startupz") == (200, "ok\n")
        assert fetch(f"{url}/livez") == (200, "ok\n")


def test_a_server_that_is_away_makes_a_consumer_unready_and_never_dead(embedded_bus: Bus) -> None:
    hub = HubProcess().start()
    bus = replace(embedded_bus, hub=hub)
    with app_of(bus, stuck_after_s=0.5) as (app, url):
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        hub.kill()
        wait_for(lambda: not conditions(f"{url}/readyz")["phoenix"])
        bus.send(300)
        wait_for(lambda: fetch_json(f"{url}/stats")["window"]["in_progress"])
        wait_for(lambda: (fetch_json(f"{url}/stats")["connections"]["phoenix"]["since_s"] or 0) > 3)
        assert fetch(f"{url}/livez") == (200, "ok\n")
        status, text = fetch(f"{url}/readyz")
        assert (status, text.partition(":")[0]) == (503, "phoenix")
        hub.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        wait_for(lambda: app.snapshot().settled == 300)
    hub.stop()


def test_a_full_window_of_calls_that_never_end_is_dead(embedded_bus: Bus, tmp_path: Path) -> None:
    end = tmp_path / "end"
    (tmp_path / "hangs.py").write_text(
        f"import os, time\ndef predict(event):\n    while not os.path.exists({str(end)!r}):\n        time.sleep(0.05)\n"
    )
    model = f"{tmp_path}/hangs.py:predict"
    options = {"window": 2, "concurrency": 2, "timeout_s": 3600.0, "stop_deadline_s": 0.1, "mode": "none"}
    with app_of(embedded_bus, model=model, stuck_after_s=0.5, **options) as (app, url):
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        embedded_bus.send(5)
        wait_for(lambda: fetch(f"{url}/livez")[0] == 503)
        assert fetch(f"{url}/livez")[1].startswith("progress: 2 in progress of 2")
        wait_for(lambda: fetch_json(f"{url}/stats")["progress"]["stuck"])
        # No thread of the consumer is left to the tests that follow.
        end.touch()


def test_a_subscription_that_the_broker_took_away_is_dead(embedded_bus: Bus) -> None:
    with app_of(embedded_bus, stuck_after_s=1.0) as (app, url):
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        # The broker forgets the subscription, and says nothing.
        assert app._consumer is not None
        subscription: Any = app._consumer._broker._supervisor._subscriptions[0]  # type: ignore[attr-defined]
        subscription._attached.unsubscribe(f"{subscription._name}-1")
        embedded_bus.send(5)
        wait_for(lambda: fetch(f"{url}/livez")[0] == 503)
        assert conditions(f"{url}/livez") == {
            "process": True, "gauge": True, "reader": True, "watchdog": True, "calls": True, "progress": False,
        }  # fmt: skip
        assert fetch(f"{url}/readyz")[0] == 200


def test_a_reader_that_hangs_is_dead(embedded_bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "HANGS_S", 1.0)
    released = threading.Event()

    def block(signal: Signal) -> None:
        if isinstance(signal, Received):
            released.wait(LONG)

    with app_of(embedded_bus, block) as (app, url):
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        embedded_bus.send(5)
        wait_for(lambda: conditions(f"{url}/livez").get("reader") is False)
        released.set()
        wait_for(lambda: fetch(f"{url}/livez")[0] == 200)


def test_openmetrics_and_stats_can_be_read(embedded_bus: Bus) -> None:
    with app_of(embedded_bus) as (app, url):
        app.start()
        embedded_bus.send(20, poison=5)
        wait_for(lambda: app.snapshot().settled == 20)
        status, text = fetch(f"{url}/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert status == 200
        assert text.endswith("# EOF\n")
        names = {family.name for family in read_openmetrics(text)}  # type: ignore[no-untyped-call]
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


def test_a_stopped_replica_is_seen(embedded_bus: Bus) -> None:
    """A process that runs no more sends no reports: only the age of the last one tells."""
    consumer = embedded_bus.consume("--metrics", "0", "--processes", "2", "--concurrency", "2")
    url = url_of(consumer)
    wait_for(lambda: fetch(f"{url}/readyz")[0] == 200 and len(conditions(f"{url}/readyz")) == 8)
    [first, *_] = psutil.Process(consumer.process.pid).children()
    first.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: fetch(f"{url}/livez")[0] == 503)
        wait_for(lambda: any(name.endswith(".process") and not ok for name, ok in conditions(f"{url}/livez").items()))
    finally:
        first.send_signal(signal.SIGCONT)
    wait_for(lambda: fetch(f"{url}/livez")[0] == 200)
    consumer.terminate()
    consumer.finish()
