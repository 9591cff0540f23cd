"""What `infertool watch` costs at a steady rate, how quick it answers a key, and a RichLog an event beside it."""

from __future__ import annotations

import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Row
from tests.support.hub import HubProcess
from tests.support.running import environment
from tests.support.terminal import Terminal

SECONDS = 12.0
KEYS = 40
_ENV = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}


def run(hub: HubProcess, command: list[str], rate: int, *, keys: bool) -> tuple[float, list[float], int, bytes]:
    """Run a viewer while events come; return its share of a core, key times in seconds, events pushed, its output."""
    env = environment(**_ENV)
    with Terminal([sys.executable, *command], env=env) as terminal:
        time.sleep(3)
        pusher = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.harness.pushing", hub.url, str(rate), str(SECONDS)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        time.sleep(1)
        process = psutil.Process(terminal.process.pid)
        before, began = sum(process.cpu_times()[:2]), time.perf_counter()
        times = [_pressed(terminal, number) for number in range(KEYS)] if keys else []
        pusher.wait()
        share = (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - began)
        time.sleep(1.5)
        return share, times, int(pusher.communicate()[0]), terminal.written


def _pressed(terminal: Terminal, number: int) -> float:
    """Press space at a random moment; return how long the word takes that it brings to the screen."""
    time.sleep(random.uniform(0.1, 0.3))
    began = time.perf_counter()
    before = terminal.type(" ")
    return terminal.wait((b"PAUSED", b"live")[number % 2], after=before) - began


@pytest.mark.parametrize(("rate", "most"), [(500, 0.4), (2000, 1.0)])
def test_watch_at_a_rate(
    benchmark: BenchmarkFixture, hub: HubProcess, row: Row, tmp_path: Path, rate: int, most: float
) -> None:
    command = ["-m", "infertool", "watch", "--phoenix", hub.url]
    share, times, pushed, output = benchmark.pedantic(lambda: run(hub, command, rate, keys=True), rounds=1)
    counted = int(re.findall(rb"([\d ]+) in all", output)[-1].replace(b" ", b""))
    peer = run(hub, ["-m", "tests.bench.harness.richlog", hub.url], rate, keys=False)[0]
    p95 = statistics.quantiles(times, n=20)[-1] * 1000
    row(
        f"`watch` at {rate} events/s, 120x40",
        f"{share:.0%} of a core ({share / peer:.2f}x of a RichLog an event), key to redraw p95 {p95:.0f} ms, "
        f"{pushed - counted} of {pushed} not counted",
        f"at most {most:.0%}, under 100 ms, none",
    )
