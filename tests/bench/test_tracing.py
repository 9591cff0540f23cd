"""Events a second with traces on, against traces off and the same events: at 1 % and at 100 % recorded."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from infertool.telemetry.trace_context import new
from tests.bench.harness.fixtures import Fill, Row
from tests.bench.harness.reference import NOOP
from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.otlp import Receiver, receiver
from tests.support.running import CREDENTIALS, Running

EVENTS = 20_000
ROUNDS = 5
# Percent recorded, what is published, goal.
ROWS = [(1, "none", "at least 0.97x"), (100, "none", "report"), (1, "auto", "report"), (100, "auto", "at least 0.6x")]


@pytest.mark.activemq
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", ROWS)
def test_tracing(
    case: tuple[int, str, str],
    benchmark: BenchmarkFixture,
    activemq: ActiveMQ,
    hub: HubProcess,
    filled: Fill,
    row: Row,
    tmp_path: Path,
) -> None:
    percent, confirm, goal = case

    def consume(traces: Receiver | None) -> float:
        queue = filled(EVENTS, headers=lambda n: {"traceparent": str(new(sampled=n * percent % 100 < percent))})
        env = {"INFERTOOL_TELEMETRY__TRACES": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url} if traces else {}
        publish = ["--publish", "none"] if confirm == "none" else ["--phoenix", hub.url, "--confirm", confirm]
        summary = Running(
            tmp_path, "consume", "--broker", activemq.url, "--queue", queue, "--model", NOOP,
            "--max-messages", str(EVENTS), "-o", "json", *publish, **CREDENTIALS, **env,
        ).finish()  # fmt: skip
        assert summary["succeeded"] == EVENTS
        dropped.append(summary["spans_dropped"])
        rate: float = summary["rate"]
        return rate

    dropped: list[int] = []
    with receiver("discards") as traces:
        ratios: list[float] = []
        rates: list[float] = []

        def one_round(order: list[Receiver | None]) -> None:
            found = {each is None: consume(each) for each in order}
            ratios.append(found[False] / found[True])
            rates.append(found[False])

        orders = iter([[None, traces], *([[traces, None], [None, traces]] * ROUNDS)][: ROUNDS + 1])
        benchmark.pedantic(lambda: one_round(next(orders)), rounds=ROUNDS, warmup_rounds=1)
    figure = (
        f"{statistics.median(ratios[1:]):.2f}x ({statistics.median(rates[1:]):.0f}/s; {max(dropped)} spans dropped)"
    )
    row(f"traces on, {percent} % of events recorded, --confirm {confirm}, against off", figure, goal)
