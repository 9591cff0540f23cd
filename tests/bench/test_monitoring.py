"""Metrics on against off, and the time of a scrape, on the real ActiveMQ."""

from __future__ import annotations

import json
import statistics
import time
from functools import partial

import pytest

from tests.bench.harness.reference import NOOP
from tests.support.prometheus import fetch
from tests.support.running import CREDENTIALS, Running

EVENTS = 20_000
ROUNDS = 4
SCRAPES = 200


@pytest.mark.activemq
@pytest.mark.timeout(900)
def test_throughput_with_metrics(benchmark, activemq, hub, filled, row, tmp_path) -> None:
    fill = partial(filled, EVENTS, persistent=False)

    def consume(*options: str) -> float:
        summary = Running(
            tmp_path, "consume", "--broker", activemq.url, "--queue", fill(), "--phoenix", hub.url, "--model", NOOP,
            "--publish", "none", "--max-messages", str(EVENTS), "-o", "json", *options, **CREDENTIALS,
        ).finish()  # fmt: skip
        assert summary["succeeded"] == EVENTS
        return summary["rate"]

    ratios: list[float] = []
    benchmark.pedantic(lambda: ratios.append(consume("--metrics", "0") / consume()), rounds=ROUNDS, warmup_rounds=1)
    row("consume --publish none, metrics on against off", f"{statistics.median(ratios[1:]):.3f}x", "at least 0.98x")


@pytest.mark.activemq
def test_a_scrape(benchmark, activemq, hub, filled, row, tmp_path) -> None:
    consumer = Running(
        tmp_path, "consume", "--broker", activemq.url, "--queue", filled(EVENTS, persistent=False), "--phoenix",
        hub.url, "--model", NOOP, "--metrics", "0", "-o", "json", **CREDENTIALS,
    )  # fmt: skip
    assert consumer.process.stdout
    url = json.loads(consumer.process.stdout.readline())["url"]
    while json.loads(fetch(f"{url}/stats")[1])["counts"]["succeeded"] < EVENTS:
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
