"""The trained ONNX model of fixtures/, 32 events a call against one: alone on one thread, and in a consumer."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from infertool.models.loader import open_model
from infertool.settings import ModelSettings
from tests.bench.harness.fixtures import Fill, Row
from tests.bench.harness.reference import REFERENCE
from tests.support.activemq import ActiveMQ
from tests.support.running import CREDENTIALS, Running

MODEL = "onnx:fixtures/models/reference.onnx"
EVENTS, BATCH = 32_000, 32
CONSUMED = 20_000
PAIRS = 5


def test_batches_against_single_events(benchmark: BenchmarkFixture, row: Row) -> None:
    model = open_model(ModelSettings(spec=MODEL))
    predict_batch = model.predict_batch
    assert predict_batch is not None
    batch = [orjson.loads(REFERENCE.read_bytes()) for _ in range(BATCH)]
    rates, ratios = [], []

    def pair() -> None:
        started = time.perf_counter()
        for _ in range(EVENTS // BATCH):
            for event in batch:
                model.predict(event)
        between = time.perf_counter()
        for _ in range(EVENTS // BATCH):
            predict_batch(batch)
        ended = time.perf_counter()
        rates.append(EVENTS / (ended - between))
        ratios.append((between - started) / (ended - between))

    benchmark.pedantic(pair, rounds=PAIRS, warmup_rounds=1)
    figure = f"{statistics.median(ratios[1:]):.1f}x ({statistics.median(rates[1:]):.0f}/s)"
    row(f"batched ONNX model, batch {BATCH} against 1, predict_batch alone", figure, "report; more than 2x")


@pytest.mark.activemq
def test_a_consumer_in_batches_against_single_events(
    benchmark: BenchmarkFixture, activemq: ActiveMQ, filled: Fill, row: Row, tmp_path: Path
) -> None:
    rates, ratios = [], []

    def consume(*options: str) -> float:
        consumer = Running(
            tmp_path, "consume", "--broker", activemq.url, "--queue", filled(CONSUMED), "--publish", "none",
            "--model", MODEL, "--window", "200", "--max-messages", str(CONSUMED), "-o", "json", *options,
            **CREDENTIALS,
        )  # fmt: skip
        summary = consumer.finish()
        assert summary["succeeded"] == CONSUMED
        rate: float = summary["rate"]
        return rate

    def pair() -> None:
        single = consume()
        rates.append(consume("--batch-size", str(BATCH)))
        ratios.append(rates[-1] / single)

    benchmark.pedantic(pair, rounds=3, warmup_rounds=1)
    figure = f"{statistics.median(ratios[1:]):.2f}x ({statistics.median(rates[1:]):.0f}/s)"
    row(f"the same in a consumer, --publish none: --batch-size {BATCH} against 1", figure, "report")
