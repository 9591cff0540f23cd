"""500 events a second through a model of 300 ms, on the broker's default policy, from send to a joined topic."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from infertool import brokers
from infertool.load.arrivals import Planned
from infertool.load.headers import EnvelopeOptions
from infertool.load.options import LoadOptions
from infertool.load.run import Listeners, LoadRun
from infertool.load.tally import Measure
from infertool.secret import Secret
from infertool.settings import BrokerSettings, PhoenixSettings, Settings
from tests.bench.harness.fixtures import Row
from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.running import CREDENTIALS, Running

RATE, SECONDS = 500, 60
QUEUE = "/queue/bench.sustained"


@pytest.mark.activemq
@pytest.mark.timeout(300)
def test_sustained(benchmark: BenchmarkFixture, activemq: ActiveMQ, hub: HubProcess, row: Row, tmp_path: Path) -> None:
    consumer = Running(
        tmp_path, "consume", "--broker", activemq.url, "--queue", QUEUE, "--phoenix", hub.url,
        "--model", "sim:", "--max-attempts", "1", "--concurrency", "300", "--window", "600", "-o", "json",
        **CREDENTIALS,
    )  # fmt: skip
    settings = Settings(
        broker=BrokerSettings(url=activemq.url, user="admin", password=Secret("admin")),
        phoenix=PhoenixSettings(url=hub.url),
    )
    options = LoadOptions(
        planned=Planned(qps=RATE, duration_s=SECONDS), envelope=EnvelopeOptions(QUEUE), e2e=True, settle_s=30
    )
    load, runs = LoadRun(settings, options, Listeners(), {}), []
    _await_consumer(settings.broker)
    benchmark.pedantic(lambda: runs.append(load.run()), rounds=1)
    consumer.terminate()
    summary = consumer.finish()
    counts, times = runs[0].counts, runs[0].histograms[Measure.E2E].percentiles()
    assert (counts.sent, counts.lost) == (RATE * SECONDS, 0)
    assert (counts.results or 0) + (counts.failures or 0) == counts.sent
    assert summary["dead_lettered"] == counts.failures
    row(
        f"{RATE} events/s for {SECONDS} s, sim: (mean 300 ms), default broker policy",
        f"{counts.sent} sent, {counts.lost} lost, {counts.duplicates} duplicates, "
        f"p50 {times.p50:.0f} ms, p99 {times.p99:.0f} ms",
        "0 lost, p99 under 700 ms",
    )


def _await_consumer(settings: BrokerSettings) -> None:
    broker = brokers.open(settings)
    broker.connect()
    for _ in range(100):
        depth = broker.measure(QUEUE, 1.0)
        if depth and depth.consumers:
            broker.close(5)
            return
    raise AssertionError("the consumer did not subscribe")
