"""A model of about 20 ms of pure Python: worker processes against one of them, and against threads."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from infertool.consumer.attempt import Event
from infertool.consumer.processes.process import WorkerProcess
from infertool.consumer.processes.wire import WorkerConfig
from infertool.settings import ModelSettings
from tests.bench.harness.fixtures import Fill, Row
from tests.bench.harness.reference import REFERENCE
from tests.support.activemq import ActiveMQ
from tests.support.messages import message
from tests.support.running import CREDENTIALS, Running

EVENTS = 300
ROUNDS = 3
MODEL = "fixtures/models/computes.py:predict"
CASES = {
    "2 worker processes against 1": (["--executor", "processes", "--workers", "2"], "at least 1.8x on two idle cores"),
    "2 consumers with a worker each against 1": (
        ["--executor", "processes", "--workers", "1", "--processes", "2"],
        "report",
    ),
    "16 threads against 1 worker process": (["--concurrency", "16"], "report"),
}
ONE = ["--executor", "processes", "--workers", "1"]


def consume(folder: Path, broker: ActiveMQ, queue: str, *options: str) -> float:
    consumer = Running(
        folder, "consume", "--broker", broker.url, "--queue", queue, "--publish", "none", "--model", MODEL,
        "--window", "20", "--exit-when-idle", "1s", "-o", "json", *options, **CREDENTIALS,
    )  # fmt: skip
    summary = consumer.finish()
    assert summary["succeeded"] == EVENTS
    rate: float = summary["rate"]
    return rate


@pytest.mark.activemq
@pytest.mark.parametrize("case", CASES)
def test_a_model_that_computes(
    case: str, benchmark: BenchmarkFixture, activemq: ActiveMQ, filled: Fill, row: Row, tmp_path: Path
) -> None:
    options, goal = CASES[case]
    ratios, rates = [], []

    def pair() -> None:
        one = consume(tmp_path, activemq, filled(EVENTS), *ONE)
        rates.append(consume(tmp_path, activemq, filled(EVENTS), *options))
        ratios.append(rates[-1] / one)

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios[1:])
    benchmark.extra_info["ratio"] = ratio
    row(f"20 ms of pure Python, {case}", f"{ratio:.2f}x ({statistics.median(rates[1:]):.0f}/s)", goal)


def test_there_and_back(benchmark: BenchmarkFixture, row: Row) -> None:
    process = WorkerProcess(WorkerConfig(ModelSettings(spec="fixtures/models/noop.py:predict"), False, 0, 0))
    process.wait_ready(lambda: True)
    event = Event(message(REFERENCE.read_bytes()), "e")

    def ask() -> None:
        process.ask(process.number(1), [[event]])
        assert process.answers()

    benchmark(ask)
    process.discard()
    if benchmark.stats:
        row("an event of 364 bytes to a worker process and back", f"{benchmark.stats['median'] * 1e6:.0f} us", "report")
