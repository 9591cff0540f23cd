"""Memory of a consumer that runs on and on. A million events take minutes: BENCH_LONG=1 asks for them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Row
from tests.bench.harness.reference import NOOP, REFERENCE
from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, Running

EVENTS, FIRST, STEP = 1_000_000, 100_000, 100_000
# What is sent ahead of the consumer: enough that it never waits, little enough that the broker need not page.
AHEAD = 20_000
QUEUE = "/queue/bench.memory"


class Feeder(threading.Thread):
    """Sends `AHEAD` events each time it is asked, so that the broker holds few at any time."""

    def __init__(self, broker: ActiveMQ) -> None:
        super().__init__(daemon=True)
        self._broker = broker

    def run(self) -> None:
        raw, body = RawStomp(self._broker.stomp_port), REFERENCE.read_bytes()
        for start in range(0, EVENTS, AHEAD):
            raw.send(QUEUE, (({"event_id": f"e-{number}"}, body) for number in range(start, start + AHEAD)))
        raw.close()


@pytest.mark.activemq
@pytest.mark.timeout(3600)
@pytest.mark.skipif("BENCH_LONG" not in os.environ, reason="takes minutes: BENCH_LONG=1")
def test_a_million_events(
    benchmark: BenchmarkFixture,
    activemq: ActiveMQ,
    hub: HubProcess,
    row: Row,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resident: list[int] = []
    consumer = Running(
        tmp_path, "consume", "--broker", activemq.url, "--queue", QUEUE, "--phoenix", hub.url, "--model", NOOP,
        "--publish-batch", "64", "--max-messages", str(EVENTS), "-o", "json",
        INFERTOOL_TELEMETRY__STATUS_INTERVAL_S="1", **CREDENTIALS,
    )  # fmt: skip

    def run() -> None:
        Feeder(activemq).start()
        for wanted in range(FIRST, EVENTS + 1, STEP):
            while settled(consumer.log.read_text()) < wanted and consumer.process.poll() is None:
                time.sleep(0.2)
            if consumer.process.poll() is None:
                resident.append(psutil.Process(consumer.process.pid).memory_info().rss)
            with capsys.disabled():
                print(f"  {wanted} events, {resident[-1] / 2**20:.1f} MiB", flush=True)

    benchmark.pedantic(run, rounds=1)
    assert consumer.finish()["succeeded"] == EVENTS
    growth = max(resident) / resident[0]
    row(
        f"memory after {EVENTS} events against the first {FIRST}",
        f"{growth:.3f}x ({resident[0] / 2**20:.1f} to {max(resident) / 2**20:.1f} MiB resident)",
        "at most 1.05x",
    )
    assert growth <= 1.05


def settled(log: str) -> int:
    """Return the last count that the consumer's status lines tell."""
    lines = [line for line in log.splitlines() if " succeeded | " in line]
    return int(lines[-1].split()[2]) if lines else 0
