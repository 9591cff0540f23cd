"""Instructions an event, counted by valgrind: a figure that noise does not touch, to compare commits by."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Row
from tests.bench.harness.loop import BATCH
from tests.support.install import apt

FEW, MANY = 5, 25


def instructions(batches: int, *mode: str) -> int:
    if not shutil.which("valgrind"):
        apt("valgrind")
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m",
         "tests.bench.harness.loop", str(batches), *mode],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    (collected,) = re.findall(r"Collected : (\d+)", done.stderr)
    return int(collected)


def an_event(*mode: str) -> float:
    """Return the instructions that an event takes; what happens once is left out."""
    return (instructions(MANY, *mode) - instructions(FEW, *mode)) / (MANY - FEW) / BATCH


def test_instructions_an_event(benchmark: BenchmarkFixture, row: Row) -> None:
    counts = []
    benchmark.pedantic(lambda: counts.append(an_event()), rounds=1)
    figure = f"{counts[0] / 1000:.1f} thousand"
    row("instructions an event, from STOMP bytes to ack bytes on one thread, no-op model", figure, "report")
