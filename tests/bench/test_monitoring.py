"""What metrics and rules cost: instructions and CPU time an event, what happens once a second, and a scrape.

CPU time and instructions tell on a busy machine what a rate tells only on a quiet one. Start-up is left out: it is the
same for few events and for many.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from infertool.app.alerting import Alerting
from infertool.settings import Settings
from infertool.settings.tree import ConsumeSettings, PublishSettings
from infertool.telemetry import signals
from infertool.telemetry.stats_builder import Identity, StatsBuilder
from tests.bench.harness.fixtures import Fill, Row
from tests.bench.harness.reference import NOOP
from tests.bench.test_instructions import an_event
from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.prometheus import fetch
from tests.support.running import CREDENTIALS, Running
from tests.telemetry.test_metrics import Source

FEW, MANY = 20_000, 100_000
ROUNDS = 5
SAMPLES = 60
SCRAPES = 200


def test_instructions_with_metrics(benchmark: BenchmarkFixture, row: Row) -> None:
    counts: list[float] = []
    benchmark.pedantic(lambda: counts.append(an_event() / an_event("metrics")), rounds=1)
    row("instructions an event, metrics off against on", f"{counts[0]:.3f}x", "at least 0.98x")


def test_what_happens_once_a_second(benchmark: BenchmarkFixture, row: Row, tmp_path: Path) -> None:
    """The sample and the rules, of a consumer that has settled many events."""
    rng = random.Random(7)
    told: list[signals.Signal] = [signals.Received(50, 0), signals.QueueState(5, 1, 2.0, 3, 1000)]
    for _ in range(200):
        times = [rng.expovariate(20) for _ in range(50)]
        told += [
            signals.Ages(times),
            signals.ConfirmTimes(times),
            signals.Predicted(times),
            signals.Succeeded(times),
        ]
    settings = Settings(consume=ConsumeSettings(state_dir=str(tmp_path)), publish=PublishSettings(mode="none"))
    builder = StatsBuilder(Source(told), Identity("c", "0", "q", "d", "m"), tmp_path, 300.0)
    alerting = Alerting(settings, lambda: builder.document)
    used: list[float] = []

    def second() -> None:
        began = time.thread_time()
        builder.sample(alerting.states)
        alerting.evaluate()
        used.append(time.thread_time() - began)

    benchmark.pedantic(second, rounds=SAMPLES, warmup_rounds=5)
    alerting.close()
    row("sample and rules, once a second, CPU time", f"{statistics.median(used) * 1000:.1f} ms", "under 10 ms")


@pytest.mark.activemq
@pytest.mark.timeout(1800)
def test_cpu_time_with_metrics(
    benchmark: BenchmarkFixture, activemq: ActiveMQ, hub: HubProcess, filled: Fill, row: Row, tmp_path: Path
) -> None:
    rates: dict[bool, list[float]] = {False: [], True: []}

    def cpu_s(events: int, *, metrics: bool) -> float:
        queue = filled(events, persistent=False)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        summary = Running(
            tmp_path, "consume", "--broker", activemq.url, "--queue", queue, "--phoenix", hub.url, "--model", NOOP,
            "--publish", "none", "--max-messages", str(events), "-o", "json", *(("--metrics", "0") if metrics else ()),
            **CREDENTIALS,
        ).finish()  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert summary["succeeded"] == events
        if events == MANY:
            rates[metrics].append(summary["rate"])
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    steady: dict[bool, list[float]] = {False: [], True: []}

    def both() -> None:
        few = {metrics: cpu_s(FEW, metrics=metrics) for metrics in (False, True)}
        for metrics in (True, False):
            steady[metrics].append(cpu_s(MANY, metrics=metrics) - few[metrics])

    benchmark.pedantic(both, rounds=ROUNDS, warmup_rounds=1)
    off, on = (statistics.median(steady[metrics][1:]) for metrics in (False, True))
    row("consume --publish none, CPU time an event, metrics and rules off against on", f"{off / on:.3f}x", "0.98x")
    ratio = statistics.median(on / off for on, off in zip(rates[True][1:], rates[False][1:], strict=True))
    row(f"consume --publish none, {MANY} events, rate, on against off", f"{ratio:.3f}x", "0.98x on a quiet machine")


@pytest.mark.activemq
def test_a_scrape(
    benchmark: BenchmarkFixture, activemq: ActiveMQ, hub: HubProcess, filled: Fill, row: Row, tmp_path: Path
) -> None:
    consumer = Running(
        tmp_path, "consume", "--broker", activemq.url, "--queue", filled(FEW, persistent=False), "--phoenix",
        hub.url, "--model", NOOP, "--metrics", "0", "-o", "json", **CREDENTIALS,
    )  # fmt: skip
    assert consumer.process.stdout
    url = json.loads(consumer.process.stdout.readline())["url"]
    while json.loads(fetch(f"{url}/stats")[1])["counts"]["succeeded"] < FEW:
        time.sleep(0.2)
    times: list[float] = []

    def scrape() -> None:
        began = time.perf_counter()
        assert fetch(f"{url}/metrics")[0] == 200
        times.append(time.perf_counter() - began)

    benchmark.pedantic(scrape, rounds=SCRAPES, warmup_rounds=5)
    row("a scrape of /metrics, with the connection, median", f"{statistics.median(times) * 1000:.1f} ms", "under 5 ms")
    consumer.terminate()
    consumer.finish()
