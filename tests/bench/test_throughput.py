"""Events a second on the real ActiveMQ, against a bare stomp.py listener in the same run."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.bench.peers import bare_stomp_py
from tests.support.running import CREDENTIALS, Running

EVENTS = 20_000
ROUNDS = 3
CASES = {
    "confirm on, one push an event": (["--confirm", "auto"], "at least 0.5x"),
    "--publish none": (["--publish", "none"], "report"),
}


def consume(folder: Path, broker, hub, queue: str, *options: str) -> float:
    consumer = Running(
        folder, "consume", "--broker", broker.url, "--queue", queue, "--phoenix", hub.url,
        "--model", "fixtures/models/noop.py:predict", "--window", "200", "--max-messages", str(EVENTS), "-o", "json",
        *options, **CREDENTIALS,
    )  # fmt: skip
    summary = consumer.finish()
    assert summary["succeeded"] == EVENTS
    return summary["rate"]


@pytest.mark.activemq
@pytest.mark.parametrize("case", CASES)
def test_against_a_bare_listener(case, benchmark, activemq, hub, filled, row, tmp_path) -> None:
    options, goal = CASES[case]
    ratios, rates = [], []

    def pair() -> None:
        bare = bare_stomp_py(activemq, filled(EVENTS), EVENTS)
        rates.append(consume(tmp_path, activemq, hub, filled(EVENTS), *options))
        ratios.append(rates[-1] / bare)

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios[1:])
    benchmark.extra_info["ratio"] = ratio
    row(f"{case}, no-op model, window 200", f"{ratio:.2f}x ({statistics.median(rates[1:]):.0f}/s)", goal)
