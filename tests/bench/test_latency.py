"""What infertool adds to an event's way at 500 events a second, against a bare relay that confirms nothing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import websocket
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Fill, Row
from tests.bench.harness.reference import NOOP, REFERENCE
from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, Running

RATE, SECONDS, ROUNDS = 500, 8, 3
EVENTS = RATE * SECONDS
# The first second warms up: imports, just-in-time compilers, the confirm mode that auto settles on.
WARM = RATE
TOPIC = "public:results"


class Screen(threading.Thread):
    """A viewer over a bare websocket-client: notes when each event's result came."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, float] = {}
        self._complete = threading.Event()
        self._connection = websocket.create_connection(f"{url}?vsn=2.0.0", timeout=120, suppress_origin=True)
        self._connection.send(json.dumps(["1", "1", TOPIC, "phx_join", {}]))
        self._connection.recv()

    def run(self) -> None:
        while len(self.seen) < EVENTS:
            frame = json.loads(self._connection.recv())
            if frame[3] == "new_result":
                self.seen.setdefault(frame[4]["event_id"], time.perf_counter())
        self._complete.set()
        self._connection.close()

    def wait(self) -> dict[str, float]:
        assert self._complete.wait(120), f"{len(self.seen)} of {EVENTS} results came"
        return self.seen


def send_all(broker: ActiveMQ, queue: str) -> dict[str, float]:
    """Send one event after the other at its time; return when each was to be sent."""
    raw, body = RawStomp(broker.stomp_port), REFERENCE.read_bytes()
    due: dict[str, float] = {}
    begun = time.perf_counter()
    for number in range(EVENTS):
        at = begun + number / RATE
        due[f"e-{number}"] = at
        time.sleep(max(0.0, at - time.perf_counter()))
        raw.write(b"SEND\ndestination:%b\npersistent:true\nevent_id:e-%d\n\n%b\0" % (queue.encode(), number, body))
    raw.barrier(queue)
    raw.close()
    return due


def latencies(broker: ActiveMQ, hub: HubProcess, queue: str) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds, from the intended send time to the screen."""
    screen = Screen(hub.url)
    screen.start()
    due = send_all(broker, queue)
    seen = screen.wait()
    times = sorted(1000 * (seen[name] - at) for name, at in list(due.items())[WARM:])
    return times[len(times) // 2], times[len(times) * 99 // 100]


@contextmanager
def relay(broker: ActiveMQ, hub: HubProcess, queue: str) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.bench.harness.peers.relay", str(broker.stomp_port), queue, hub.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline()
    yield
    process.terminate()
    process.communicate()


@contextmanager
def consumer(folder: Path, broker: ActiveMQ, hub: HubProcess, queue: str) -> Iterator[None]:
    running = Running(
        folder, "consume", "--broker", broker.url, "--queue", queue, "--phoenix", hub.url, "--model", NOOP,
        "-o", "json", **CREDENTIALS,
    )  # fmt: skip
    while "broker connected" not in running.log.read_text():
        time.sleep(0.05)
    yield
    running.terminate()
    assert running.finish()["succeeded"] == EVENTS


@pytest.mark.activemq
@pytest.mark.timeout(600)
def test_added_latency(
    benchmark: BenchmarkFixture, activemq: ActiveMQ, hub: HubProcess, filled: Fill, row: Row, tmp_path: Path
) -> None:
    pairs = []

    def pair() -> None:
        queue = filled(0)
        with relay(activemq, hub, queue):
            bare = latencies(activemq, hub, queue)
        queue = filled(0)
        with consumer(tmp_path, activemq, hub, queue):
            pairs.append((latencies(activemq, hub, queue), bare))

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    figures = []
    for part in (0, 1):
        ratio = statistics.median(ours[part] / bare[part] for ours, bare in pairs[1:])
        ours, bare = (statistics.median(pair[side][part] for pair in pairs[1:]) for side in (0, 1))
        figures.append(f"{ratio:.2f}x ({ours:.1f} against {bare:.1f} ms)")
    case = f"latency at {RATE} events/s, no-op model, confirm on, against a bare stomp.py-to-websocket relay"
    row(case, f"p50 {figures[0]}, p99 {figures[1]}", "p50 at most 1.5x, p99 at most 2x")
