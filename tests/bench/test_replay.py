"""Replaying against a raw socket that does the same transactions; memory against depth."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Row
from tests.bench.harness.rawmoves import RawMover
from tests.bench.harness.reference import REFERENCE
from tests.support.activemq import ActiveMQ
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, environment

LETTERS = 10_000
BATCH = 100
ROUNDS = 3
FEW, MANY = 5_000, 50_000
_numbers = itertools.count(1)


def letters(origin: str, count: int) -> Iterator[tuple[dict[str, str], bytes]]:
    death = {
        "original_destination": origin,
        "replay_count": "0",
        "dlq_stage": "infer",
        "dlq_error_type": "ValueError",
        "dlq_error": "cannot",
        "dlq_failed_at": "2026-01-31T03\\c00\\c00Z",
    }
    body = REFERENCE.read_bytes()
    return (({"event_id": f"e-{n}", "original_message_id": f"m-{n}", **death}, body) for n in range(count))


def fill(broker: ActiveMQ, count: int) -> str:
    queue = f"/queue/bench.replay.{os.getpid()}.{next(_numbers)}"
    raw = RawStomp(broker.stomp_port)
    raw.send(queue, letters(f"{queue}.origin", count))
    raw.close()
    return queue


def command(broker: ActiveMQ, queue: str, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "infertool",
        "replay-dlq",
        queue,
        "--broker",
        broker.url,
        "--yes",
        "-o",
        "json",
        *options,
    ]


def replay(broker: ActiveMQ, queue: str) -> float:
    """Return letters a second, from the first connection of the sweep to its goodbye."""
    done = subprocess.run(
        command(broker, queue),
        capture_output=True,
        check=True,
        env=environment(**CREDENTIALS),
        stdin=subprocess.DEVNULL,
    )
    summary = json.loads(done.stdout)
    assert summary["replayed"] == LETTERS
    seconds: float = summary["seconds"]
    return LETTERS / seconds


@pytest.mark.activemq
def test_against_a_raw_socket(benchmark: BenchmarkFixture, activemq: ActiveMQ, row: Row) -> None:
    ratios, rates = [], []

    def pair() -> None:
        queue = fill(activemq, LETTERS)
        raw = RawMover(activemq.stomp_port, queue, f"{queue}.raw").run(LETTERS, BATCH)
        rates.append(replay(activemq, fill(activemq, LETTERS)))
        ratios.append(rates[-1] / raw)

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios[1:])
    benchmark.extra_info["ratio"] = ratio
    row("replay of 10 000, 100 a transaction", f"{ratio:.2f}x ({statistics.median(rates[1:]):.0f}/s)", "at least 0.8x")
    assert ratio >= 0.8


def peak_kib(broker: ActiveMQ, count: int, folder: Path) -> int:
    """Return the largest resident size of a filtered replay of `count` letters."""
    queue = fill(broker, count)
    with (folder / "err").open("wb") as stderr:
        process = subprocess.Popen(
            command(broker, queue, "--where", "request_id != 'nobody'"),
            stdout=subprocess.DEVNULL, stderr=stderr, env=environment(**CREDENTIALS), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "err").read_text()
    return usage.ru_maxrss


@pytest.mark.activemq
def test_memory_against_depth(benchmark: BenchmarkFixture, activemq: ActiveMQ, row: Row, tmp_path: Path) -> None:
    growth = []

    def pair() -> None:
        growth.append(peak_kib(activemq, MANY, tmp_path) / peak_kib(activemq, FEW, tmp_path))

    benchmark.pedantic(pair, rounds=1)
    row("memory of a replay of 50 000 against 5 000", f"{growth[0]:.2f}x", "at most 1.2x")
    assert growth[0] <= 1.2
