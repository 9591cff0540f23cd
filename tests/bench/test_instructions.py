"""Instructions an event, counted by valgrind: a figure that noise does not touch, to compare commits by."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from tests.bench.harness.loop import BATCH
from tests.support.install import apt

FEW, MANY = 5, 25


def instructions(batches: int) -> int:
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m",
         "tests.bench.harness.loop", str(batches)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def test_instructions_an_event(benchmark, row) -> None:
    if not shutil.which("valgrind"):
        apt("valgrind")
    counts = []
    benchmark.pedantic(lambda: counts.append(instructions(MANY) - instructions(FEW)), rounds=1)
    figure = f"{counts[0] / (MANY - FEW) / BATCH / 1000:.1f} thousand"
    row("instructions an event, from STOMP bytes to ack bytes on one thread, no-op model", figure, "report")
