"""Looking into a deep queue; memory of a drain against depth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Fill, Row
from tests.support.activemq import ActiveMQ
from tests.support.running import CREDENTIALS, environment

DEEP = 100_000
LOOKS = 3
FEW, MANY = 5_000, 50_000


def command(broker: ActiveMQ, name: str, queue: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "infertool", name, queue, "--broker", broker.url, "-o", "json", *options]


@pytest.mark.activemq
def test_a_look_into_a_deep_queue(benchmark: BenchmarkFixture, activemq: ActiveMQ, filled: Fill, row: Row) -> None:
    queue = filled(DEEP)
    seconds = []

    def look() -> None:
        begun = time.perf_counter()
        done = subprocess.run(
            command(activemq, "peek-dlq", queue), capture_output=True, check=True, env=environment(**CREDENTIALS)
        )
        seconds.append(time.perf_counter() - begun)
        document = json.loads(done.stdout)
        assert (document["depth"], document["seen"], document["complete"]) == (DEEP, 400, False)

    benchmark.pedantic(look, rounds=LOOKS)
    row("peek of a queue of 100 000", f"{min(seconds):.2f} s, the first {seconds[0]:.2f} s", "under 2 s")
    assert min(seconds) < 2


def peak_kib(broker: ActiveMQ, queue: str, file: Path) -> int:
    """Return the largest resident size of a drain of `queue`."""
    process = subprocess.Popen(
        command(broker, "drain-dlq", queue, "--yes", "--to", str(file)),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(**CREDENTIALS), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


@pytest.mark.activemq
def test_memory_of_a_drain_against_depth(
    benchmark: BenchmarkFixture, activemq: ActiveMQ, filled: Fill, row: Row, tmp_path: Path
) -> None:
    growth = []

    def pair() -> None:
        many = peak_kib(activemq, filled(MANY), tmp_path / "many.jsonl")
        growth.append(many / peak_kib(activemq, filled(FEW), tmp_path / "few.jsonl"))

    benchmark.pedantic(pair, rounds=1)
    row("memory of a drain of 50 000 against 5 000", f"{growth[0]:.2f}x", "at most 1.2x")
    assert growth[0] <= 1.2
