"""The trained ONNX model of fixtures/, 32 events a call against one, on one thread."""

from __future__ import annotations

import statistics
import time

import orjson

from infertool.models.opening import open_model
from infertool.settings import ModelSettings
from tests.bench.conftest import REFERENCE

EVENTS, BATCH = 32_000, 32
PAIRS = 5


def test_batches_against_single_events(benchmark, row) -> None:
    model = open_model(ModelSettings(spec="onnx:fixtures/models/reference.onnx"))
    batch = [orjson.loads(REFERENCE.read_bytes()) for _ in range(BATCH)]
    rates, ratios = [], []

    def pair() -> None:
        started = time.perf_counter()
        for _ in range(EVENTS // BATCH):
            for event in batch:
                model.predict(event)
        between = time.perf_counter()
        for _ in range(EVENTS // BATCH):
            model.predict_batch(batch)
        ended = time.perf_counter()
        rates.append(EVENTS / (ended - between))
        ratios.append((between - started) / (ended - between))

    benchmark.pedantic(pair, rounds=PAIRS, warmup_rounds=1)
    figure = f"{statistics.median(ratios[1:]):.1f}x ({statistics.median(rates[1:]):.0f}/s)"
    row(f"batched ONNX model, batch {BATCH} against 1, predict_batch alone", figure, "report; more than 2x")
