"""The gateway against the bare routes that a team writes first, on the real ActiveMQ, in turn in one run."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Row
from tests.bench.harness.http_load import request
from tests.bench.harness.reference import NOOP, REFERENCE
from tests.rpc.conftest import Place, place
from tests.support.activemq import ActiveMQ
from tests.support.brokers import Server
from tests.support.embedded import EmbeddedBroker
from tests.support.gateway_burst import BUDGETS_S, PLACES, burst, burst_scene, served_at_first_retry, waits_of
from tests.support.running import CREDENTIALS, Running

ROUNDS = 5
COUNT = 3000
CONNECTIONS = 64
STREAMS = 5000
LONG_ROUNDS, LONG_COUNT = 20, 5000
MARGIN = 32_000_000

# Nothing is refused: the rows measure what acceptance costs.
OPEN = {
    "INFERTOOL_GATEWAY__CLASSES": json.dumps({"standard": {"weight": 1, "budget": "1h", "priority": 4}}),
    "INFERTOOL_GATEWAY__MAX_IN_FLIGHT": "1000000",
}


@contextmanager
def gateway(folder: Path, broker: Server, queue: str, **env: str) -> Iterator[tuple[int, int]]:
    """Run a gateway; yield its port and its process id."""
    running = Running(
        folder / "gateway", "gateway", "--listen", "0", "--broker", broker.url, "--queue", queue, "--state-dir",
        str(folder / "state"), "-o", "json", **CREDENTIALS, **OPEN, **env,
    )  # fmt: skip
    try:
        assert running.process.stdout
        ready = json.loads(running.process.stdout.readline())
        yield int(ready["port"]), running.process.pid
    finally:
        running.kill()


@contextmanager
def bare_routes(activemq: ActiveMQ, queue: str, *options: str) -> Iterator[tuple[int, int]]:
    """Run the routes of the peer; yield their port and process id."""
    peer = [sys.executable, "-m", "tests.bench.harness.peers.bare_routes", str(activemq.stomp_port), queue, *options]
    process = subprocess.Popen(peer, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def consumers(folder: Path, broker: Server, queue: str) -> Iterator[None]:
    """Run a consumer with a no-op model on a queue."""
    running = Running(
        folder / "consumer", "consume", "--broker", broker.url, "--queue", queue, "--model", NOOP, "--reply",
        "--window", "200", **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(folder),
    )  # fmt: skip
    try:
        running.wait_for("broker connected")
        yield
    finally:
        running.kill()


def load(port: int, path: str, *headers: str, count: int = COUNT, connections: int = CONNECTIONS) -> dict[str, Any]:
    """Send requests; return what they met."""
    options = [f"--header={header}" for header in headers]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.harness.http_load", str(port), path, str(REFERENCE), *options,
         "--count", str(count), "--connections", str(connections)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cpu_us(pid: int, work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """Return what `work` returns, and the CPU time of a process for each of its requests. It depends on no other's."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    found = work()
    after = process.cpu_times()
    return found, (after.user + after.system - before.user - before.system) * 1e6 / COUNT


def learn_the_rate(port: int) -> None:
    """Let a gateway see how fast its consumers are: before that it accepts only few requests at a time."""
    load(port, "/v1/infer", "Prefer=respond-async", connections=16)


@pytest.mark.activemq
@pytest.mark.timeout(900)
@pytest.mark.parametrize("persistent", [False, True], ids=["non-persistent", "persistent"])
def test_acceptance(
    benchmark: BenchmarkFixture, activemq: ActiveMQ, row: Row, tmp_path: Path, persistent: bool
) -> None:
    """Against two bare routes: one that only sends, and one whose send is the gateway's, which asks for a reply."""
    options = ["--persistent"] if persistent else []
    rates: dict[str, list[float]] = {name: [] for name in ("gw", "bare", "asking")}
    cpu: dict[str, list[float]] = {name: [] for name in rates}
    with ExitStack() as stack:
        for name in rates:
            stack.enter_context(consumers(tmp_path / name, activemq, f"/queue/bench.{name}"))
        doors = {
            "gw": stack.enter_context(gateway(tmp_path, activemq, "bench.gw")),
            "bare": stack.enter_context(bare_routes(activemq, "/queue/bench.bare", *options)),
            "asking": stack.enter_context(bare_routes(activemq, "/queue/bench.asking", "--asks", *options)),
        }

        def ask(name: str) -> dict[str, Any]:
            port = doors[name][0]
            return load(port, "/v1/infer", "Prefer=respond-async") if name == "gw" else load(port, "/send")

        def compare() -> None:
            for name, (_, pid) in doors.items():
                told, used_us = cpu_us(pid, partial(ask, name))
                # Some have ended before they are answered.
                assert told["statuses"].keys() <= ({"200", "202"} if name == "gw" else {"202"})
                rates[name].append(told["rate"])
                cpu[name].append(used_us)

        learn_the_rate(doors["gw"][0])
        benchmark.pedantic(compare, rounds=ROUNDS, warmup_rounds=1)
    kind = "persistent" if persistent else "non-persistent"
    for name, which in (("bare", ""), ("asking", " that asks for a reply, too")):
        ratio = statistics.median(mine / theirs for mine, theirs in zip(rates["gw"][1:], rates[name][1:], strict=True))
        mine, theirs = (statistics.median(rates[each][1:]) for each in ("gw", name))
        row(
            f"{kind}: gateway, POST to a confirmed 202, 64 connections, against a bare route with stomp.py{which}",
            f"{ratio:.2f}x ({mine:.0f} against {theirs:.0f}/s)", "at least 1.0x",
        )  # fmt: skip
    used = (statistics.median(cpu[name][1:]) for name in cpu)
    row(
        f"{kind}: the same, CPU time of the process for each request",
        "{:.0f} against {:.0f} and {:.0f} us".format(*used), "report",
    )  # fmt: skip


@pytest.mark.activemq
@pytest.mark.timeout(900)
def test_round_trip(benchmark: BenchmarkFixture, activemq: ActiveMQ, row: Row, tmp_path: Path) -> None:
    times = []
    with ExitStack() as stack:
        for queue in ("bench.gw", "bench.bare"):
            stack.enter_context(consumers(tmp_path / queue, activemq, f"/queue/{queue}"))
        ours, _ = stack.enter_context(gateway(tmp_path, activemq, "bench.gw"))
        peer, _ = stack.enter_context(bare_routes(activemq, "/queue/bench.bare"))

        def compare() -> None:
            mine = load(ours, "/predict", count=500, connections=1)
            theirs = load(peer, "/relay", count=500, connections=1)
            assert mine["statuses"] == theirs["statuses"] == {"200": 500}
            times.append((mine["p50_ms"], theirs["p50_ms"]))

        benchmark.pedantic(compare, rounds=ROUNDS, warmup_rounds=1)
    mine, theirs = (statistics.median(side) for side in zip(*times[1:], strict=True))
    row(
        "gateway, synchronous round trip with a no-op model, p50, against a bare relay with stomp.py",
        f"{mine / theirs:.2f}x ({mine:.1f} against {theirs:.1f} ms)", "at most 2x",
    )  # fmt: skip


@pytest.mark.activemq
@pytest.mark.timeout(900)
def test_refusals(benchmark: BenchmarkFixture, activemq: ActiveMQ, row: Row, tmp_path: Path) -> None:
    ratios, cpu = [], []
    with ExitStack() as stack:
        stack.enter_context(consumers(tmp_path / "c", activemq, "/queue/bench.gw"))
        ours, pid = stack.enter_context(gateway(tmp_path / "open", activemq, "bench.gw"))
        shut, shut_pid = stack.enter_context(
            gateway(tmp_path / "shut", activemq, "bench.gw", INFERTOOL_GATEWAY__RATE="1/h:1")
        )
        load(shut, "/v1/infer", "Prefer=respond-async", count=1, connections=1)

        def compare() -> None:
            accepted, accepted_us = cpu_us(pid, lambda: load(ours, "/v1/infer", "Prefer=respond-async"))
            refused, refused_us = cpu_us(shut_pid, lambda: load(shut, "/v1/infer", "Prefer=respond-async"))
            assert accepted["statuses"].keys() <= {"200", "202"}
            assert refused["statuses"] == {"429": COUNT}
            ratios.append(refused["rate"] / accepted["rate"])
            cpu.append((accepted_us, refused_us))

        learn_the_rate(ours)
        benchmark.pedantic(compare, rounds=ROUNDS, warmup_rounds=1)
    row("gateway, refusals (429) against acceptances", f"{statistics.median(ratios[1:]):.1f}x", "at least 5x")
    accepted_us, refused_us = (statistics.median(side) for side in zip(*cpu[1:], strict=True))
    told = f"{accepted_us:.0f} and {refused_us:.0f} us"
    row("gateway, CPU time of the process for an acceptance and for a refusal", told, "report")


async def _follow(port: int, request: bytes, opened: list[asyncio.StreamWriter]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    opened.append(writer)
    writer.write(request)
    await reader.readuntil(b"data: ")


async def _streams(port: int, event_id: str, pid: int) -> float:
    head = f"GET /v1/requests/{event_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
    opened: list[asyncio.StreamWriter] = []
    for _ in range(STREAMS // 100):
        await asyncio.gather(*(_follow(port, head.encode(), opened) for _ in range(100)))
    memory = psutil.Process(pid).memory_info().rss / 1e6
    for writer in opened:
        writer.close()
    return memory


@pytest.mark.activemq
@pytest.mark.timeout(900)
def test_waiting_streams(benchmark: BenchmarkFixture, activemq: ActiveMQ, row: Row, tmp_path: Path) -> None:
    memory: list[float] = []
    with gateway(tmp_path, activemq, "bench.gw") as (port, pid):
        # No consumer: the request waits.
        body = REFERENCE.read_bytes()

        async def ask() -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(port, "/v1/infer", body, {"Prefer": "respond-async"}))
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            [line] = [line for line in head.decode().splitlines() if line.lower().startswith("infertool-event-id")]
            return line.partition(":")[2].strip()

        event_id = asyncio.run(ask())
        benchmark.pedantic(lambda: memory.append(asyncio.run(_streams(port, event_id, pid))), rounds=1)
    row(f"gateway, memory with {STREAMS} streams of events open", f"{memory[0]:.0f} MB", "at most 400 MB")


@pytest.mark.timeout(1800)
def test_memory_over_a_long_run(
    benchmark: BenchmarkFixture, embedded_broker: EmbeddedBroker, row: Row, tmp_path: Path
) -> None:
    """A hundred thousand requests, whose rows are forgotten after some seconds: memory and store stay as they were."""
    memory: list[int] = []
    store = tmp_path / "state" / "gateway.sqlite"
    sizes: list[int] = []
    with ExitStack() as stack:
        stack.enter_context(consumers(tmp_path / "c", embedded_broker, "/queue/bench.long"))
        port, pid = stack.enter_context(gateway(tmp_path, embedded_broker, "bench.long", INFERTOOL_GATEWAY__KEEP_S="5"))
        process = psutil.Process(pid)

        def run() -> None:
            for number in range(LONG_ROUNDS):
                path = ("/v1/infer", "/predict")[number % 2]
                told = load(port, path, "Prefer=respond-async", count=LONG_COUNT)
                assert told["statuses"].keys() <= {"200", "202"}
                memory.append(process.memory_info().rss)
                sizes.append(store.stat().st_size)

        learn_the_rate(port)
        benchmark.pedantic(run, rounds=1)
    # Past the first fifth all that fills once is full.
    warm = LONG_ROUNDS // 5
    grown = max(memory[warm:]) - memory[warm]
    assert grown < MARGIN, memory
    assert max(sizes[warm:]) < 3 * max(sizes[: warm + 1]), sizes
    row(
        f"gateway, memory over {LONG_ROUNDS * LONG_COUNT:,} requests, kept for 5 s: growth after the first fifth",
        f"{grown / 1e6:.1f} MB of {memory[warm] / 1e6:.0f}", f"less than {MARGIN / 1e6:.0f} MB",
    )  # fmt: skip


@pytest.fixture(params=PLACES)
def broker(request: pytest.FixtureRequest) -> Place:
    return place(request)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("gateways", [1, 2])
def test_burst(benchmark: BenchmarkFixture, row: Row, tmp_path: Path, broker: Place, gateways: int) -> None:
    with burst_scene(broker, tmp_path, gateways) as scene:
        benchmark.pedantic(lambda: burst(scene), rounds=1)
        clients = scene.burst.clients
    served, retried = served_at_first_retry(clients)
    where = f"{('a gateway', 'two gateways')[gateways - 1]} on {type(broker.server).__name__}"
    row(
        f"{where}, ten times the capacity for 10 s: clients served at their first retry",
        f"{served / retried:.0%} ({served} of {retried})", "at least 90 %",
    )  # fmt: skip
    p99s = {name: statistics.quantiles(waits_of(clients, name), n=100)[-1] for name in BUDGETS_S}
    row(
        "the same: p99 of the wait by class, against its budget",
        ", ".join(f"{name} {p99:.1f} of {BUDGETS_S[name]:g} s" for name, p99 in p99s.items()), "within the budget",
    )  # fmt: skip
