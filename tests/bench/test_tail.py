"""Events a second that `tail` prints, against a bare websocket-client loop that receives from the same server."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.blaster import TOPIC
from tests.bench.harness.fixtures import Row
from tests.support.running import Running

EVENTS = 100_000
ROUNDS = 3


@pytest.fixture
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.bench.harness.blaster", str(EVENTS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    yield f"ws://127.0.0.1:{int(process.stdout.readline())}/socket/websocket"
    process.communicate(b"", 20)


def bare_websocket_client(url: str) -> float:
    """Return messages a second of a loop that only receives, from the first to the last.

    Without the check for UTF-8, which takes most of the time of a loop that does it.
    """
    connection = websocket.create_connection(f"{url}?vsn=2.0.0", suppress_origin=True, skip_utf8_validation=True)
    connection.send(json.dumps(["1", "1", TOPIC, "phx_join", {}]))
    connection.recv()
    connection.recv()
    began = time.perf_counter()
    for _ in range(EVENTS - 1):
        connection.recv()
    rate = (EVENTS - 1) / (time.perf_counter() - began)
    connection.close()
    return rate


def tail(folder: Path, url: str, *options: str) -> float:
    """Return lines a second, from the first to the last."""
    running = Running(folder, "tail", TOPIC, "--phoenix", url, "--count", str(EVENTS), *options)
    output = running.process.stdout
    assert output
    output.readline()
    began, lines = time.perf_counter(), 0
    while block := os.read(output.fileno(), 1 << 20):
        lines += block.count(b"\n")
    rate = lines / (time.perf_counter() - began)
    assert (running.process.wait(60), lines) == (0, EVENTS - 1)
    return rate


@pytest.mark.parametrize("form", ["jsonl", "raw", "pretty"])
def test_against_a_bare_loop(form: str, benchmark: BenchmarkFixture, url: str, row: Row, tmp_path: Path) -> None:
    ratios, rates = [], []

    def pair() -> None:
        bare = bare_websocket_client(url)
        rates.append(tail(tmp_path, url, "-o", form))
        ratios.append(rates[-1] / bare)

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios[1:])
    benchmark.extra_info["ratio"] = ratio
    row(
        f"`tail -o {form}`, against a bare websocket-client loop",
        f"{ratio:.2f}x ({statistics.median(rates[1:]):.0f}/s)",
        "at least 0.7x",
    )
