"""Synthetic run records, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from infertool.load.record import Counts, Run, RunInfo, RunWriter, Second
from infertool.load.tally import Measure, Meter


def texts(rows: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """Return the texts of a report's rows by their names."""
    return dict(cast("Sequence[tuple[str, str]]", rows))


def info(**changes: Any) -> RunInfo:
    asked = {
        "version": "0.1.0",
        "started_at": 1_790_000_000.0,
        "model": "open",
        "plan": "constant 100/s for 10 s",
        "broker": "stomp://localhost:61613",
        "queue": "/queue/ai.events.raw",
        "seed": 7,
        "measures": (Measure.SLIP, Measure.SEND, Measure.E2E),
        "options": {"--qps": "100", "--warmup": "2s"},
    }
    return RunInfo(**{**asked, **changes})


def played(
    *,
    seed: int = 7,
    seconds: int = 10,
    qps: int = 100,
    warmup: int = 2,
    typical_s: float = 0.05,
    path: Path | None = None,
    **changes: Any,
) -> Run:
    """Return a run with a second of trouble in its middle; with `path` it is written there as it goes."""
    rng = random.Random(seed)
    asked = info(**changes)
    writer = RunWriter(path, asked) if path else None
    counted_meter = Meter()
    recorded = []
    for t in range(-warmup, seconds):
        meter = counted_meter if t >= 0 else Meter()
        failures = 1 + (t % 3 == 0)
        slow = 20 if t == seconds // 2 else 1
        meter.add(Measure.SLIP, [rng.expovariate(5000) for _ in range(qps)])
        if Measure.SEND in asked.measures:
            meter.add(Measure.SEND, [rng.lognormvariate(-6, 0.3) for _ in range(qps)])
        if Measure.E2E in asked.measures:
            meter.add(Measure.E2E, [slow * rng.gammavariate(4, typical_s / 4) for _ in range(qps)])
        histograms = meter.cut()
        figures = {measure: latencies.percentiles() for measure, latencies in histograms.items()}
        second = Second(t, qps, qps, confirmed=qps, results=qps - failures, failures=failures, latency_ms=figures)
        recorded.append(second)
        if writer:
            writer.second(second, histograms)
    counted = recorded[warmup:]
    failures = sum(second.failures for second in counted)
    sent = qps * seconds
    counts = Counts(
        planned=sent, sent=sent, poison=3, confirmed=sent, results=sent - failures, failures=failures,
        dead_lettered=failures, queued=0, lost=0, duplicates=0, out_of_order=5,
        queue_before=0, queue_after=0,
    )  # fmt: skip
    if Measure.E2E not in asked.measures:
        counts = Counts(planned=sent, sent=sent, poison=0)
    run = Run(asked, tuple(recorded), counts, counted_meter.totals(), elapsed_s=float(seconds), cpu_s=0.4)
    if writer:
        writer.end(run)
    return run
