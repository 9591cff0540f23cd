"""Events a second on the real ActiveMQ, against the shortest programs of the same job, all in turn in one run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness import peers
from tests.bench.harness.fixtures import Fill, Row
from tests.bench.harness.reference import NOOP
from tests.bench.harness.side_by_side import compare
from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.running import CREDENTIALS, Running

EVENTS = 20_000
ROUNDS = 3
LIBRARIES = [name for name in ("stompman", "faststream_stomp") if importlib.util.find_spec(name)]
# Case, what runs, against which peer, goal.
ROWS = [
    ("--publish none, no-op model, against stomp.py that only acks", "none", "stomp_py", "at least 2.0x"),
    ("the same against a raw socket that acks in bulk", "none", "raw_socket", "at least 0.45x"),
    ("the raw socket against stomp.py: what the broker gives", "raw_socket", "stomp_py", "report"),
    ("confirm on, one push an event, against stomp.py that only acks", "confirmed", "stomp_py", "at least 0.5x"),
    ("the same against websocket-client alone, 64 outstanding", "confirmed", "websocket_client", "at least 0.8x"),
    ("confirm on, --publish-batch 64, against stomp.py that only acks", "batched", "stomp_py", "at least 1.5x"),
    ("--publish none against stompman", "none", "stompman", "more than 1x"),
    ("--publish none against faststream-stomp", "none", "faststream_stomp", "more than 1x"),
]  # fmt: skip


class Runners:
    """The programs under comparison. Each returns events a second."""

    def __init__(self, broker: ActiveMQ, hub: HubProcess, fill: Callable[[], str], folder: Path) -> None:
        self._broker = broker
        self._hub = hub
        self._fill = fill
        self._folder = folder

    def all(self) -> dict[str, Callable[[], float]]:
        return {
            "stomp_py": lambda: self._peer("stomp_py"),
            "raw_socket": lambda: self._peer("raw_socket"),
            "none": lambda: self._consume("--publish", "none"),
            "confirmed": lambda: self._consume("--confirm", "auto", "--publish-batch", "1"),
            "batched": lambda: self._consume("--confirm", "auto", "--publish-batch", "64"),
            "websocket_client": lambda: peers.run("websocket_client", self._hub.url, EVENTS),
            **{name: partial(self._peer, name) for name in LIBRARIES},
        }

    def _peer(self, name: str) -> float:
        return peers.run(name, self._broker.stomp_port, self._fill(), EVENTS)

    def _consume(self, *options: str) -> float:
        summary = Running(
            self._folder, "consume", "--broker", self._broker.url, "--queue", self._fill(),
            "--phoenix", self._hub.url, "--model", NOOP, "--max-messages", str(EVENTS), "-o", "json",
            *options, **CREDENTIALS,
        ).finish()  # fmt: skip
        assert summary["succeeded"] == EVENTS
        rate: float = summary["rate"]
        return rate


@pytest.mark.activemq
@pytest.mark.timeout(900)
@pytest.mark.parametrize("persistent", [False, True])
def test_throughput(
    persistent: bool,
    benchmark: BenchmarkFixture,
    activemq: ActiveMQ,
    hub: HubProcess,
    filled: Fill,
    row: Row,
    tmp_path: Path,
) -> None:
    fill = partial(filled, EVENTS, persistent=persistent)
    runners = Runners(activemq, hub, fill, tmp_path).all()
    compare(benchmark, row, runners, ROWS, title="persistent" if persistent else "non-persistent", rounds=ROUNDS)
