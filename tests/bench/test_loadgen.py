"""How fast one process sends, against the loops that send the same events; how well it keeps its plan."""

from __future__ import annotations

import itertools
import socket
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stomp
from pytest_benchmark.fixture import BenchmarkFixture
from stomp.utils import Frame

from infertool.load import sender
from infertool.load.arrivals import Planned
from infertool.load.headers import Envelope, EnvelopeOptions
from infertool.load.options import LoadOptions
from infertool.load.payloads import PayloadOptions, Payloads
from infertool.load.run import Listeners, LoadRun
from infertool.load.tally import Measure, Meter, Tally, start_clock
from infertool.load.work import Share, Work
from infertool.secret import Secret
from infertool.settings import BrokerSettings, PhoenixSettings, Settings
from tests.bench.harness.fixtures import Row
from tests.bench.harness.sink import Sink
from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, Running

SECONDS, ROUNDS = 3.0, 4
Server = ActiveMQ | Sink
# Headers and body.
SentEvent = tuple[dict[str, str], bytes]
# Above what one process sends; each planned event costs something, also one that is never sent.
OUT_OF_REACH = 200_000.0
_numbers = itertools.count(1)


def settings(server: Server, hub: HubProcess | None = None) -> Settings:
    broker = BrokerSettings(url=server.url, user="admin", password=Secret("admin"))
    return Settings(broker=broker, phoenix=PhoenixSettings(url=hub.url) if hub else PhoenixSettings())


def topic() -> str:
    """Return a place that takes everything and keeps nothing: a queue would fill the broker, which then stops us."""
    return f"/topic/bench.load.{next(_numbers)}"


def events(place: str) -> Iterator[SentEvent]:
    """Return endless (headers, body) as loadgen makes them."""
    envelope = Envelope(EnvelopeOptions(place, persistent=False), "bench")
    payloads, epoch = Payloads(PayloadOptions(), "bench"), start_clock(0)
    for number in itertools.count():
        values = envelope.values(epoch, number, number / 1000, "1764000000.000000")
        yield dict(zip(envelope.variable_headers, values, strict=True)), payloads.make(number)[0]


def of_loadgen(server: Server) -> float:
    """Return events a second, up to the broker's word that it has all."""
    place, tally = topic(), Tally()
    options = LoadOptions(
        planned=Planned(qps=OUT_OF_REACH, duration_s=SECONDS), envelope=EnvelopeOptions(place, persistent=False)
    )
    work = Work(settings(server).broker, options, Share(), tally, Meter(), on_connection=lambda _: None)
    work.connect()
    began = time.perf_counter()
    work.run(start_clock(0))
    # Without the wait for refusals, in which nothing is sent.
    rate = tally.totals()["sent"] / (time.perf_counter() - began - sender._REFUSALS_S)
    work.close()
    return rate


def of_stomp_py(server: Server) -> float:
    """Return events a second of the loop `connection.send(...)`, which makes its events as it goes, as loadgen does."""
    place = topic()
    return stomp_py(server, place, events(place))


def of_stomp_py_alone(server: Server) -> float:
    """Return events a second of the same loop, its events made beforehand."""
    place = topic()
    return stomp_py(server, place, itertools.cycle(list(itertools.islice(events(place), 20_000))))


def stomp_py(server: Server, place: str, made: Iterator[SentEvent]) -> float:
    connection = stomp.Connection12([("127.0.0.1", server.stomp_port)], auto_content_length=False)
    waiting = Receipt()
    connection.set_listener("", waiting)
    connection.connect("admin", "admin", wait=True)
    began, sent = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        headers, body = next(made)
        connection.send(place, body, headers=headers)
        sent += 1
    connection.send(f"{place}.receipts", b"", receipt="all")
    assert waiting.wait()
    rate = sent / (time.perf_counter() - began)
    connection.disconnect()
    return rate


class Receipt(stomp.ConnectionListener):  # type: ignore[misc]  # stomp.py has no types
    def __init__(self) -> None:
        self._came: deque[str] = deque()

    def on_receipt(self, frame: Frame) -> None:
        self._came.append(frame.headers["receipt-id"])

    def wait(self) -> bool:
        deadline = time.monotonic() + 60
        while "all" not in self._came and time.monotonic() < deadline:
            time.sleep(0.001)
        return "all" in self._came


def of_raw_socket(server: Server) -> float:
    """Return events a second of `sendall(frame)`, the frames made beforehand."""
    place = topic()
    frames = []
    for headers, body in itertools.islice(events(place), 20_000):
        lines = "".join(f"{key}:{value}\n" for key, value in {"destination": place, **headers}.items())
        frames.append(f"SEND\n{lines}\n".encode() + body + b"\0")
    raw = RawStomp(server.stomp_port)
    raw._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began, sent, send = time.perf_counter(), 0, raw._socket.sendall
    while time.perf_counter() - began < SECONDS:
        send(frames[sent % len(frames)])
        sent += 1
    raw.barrier(place)
    rate = sent / (time.perf_counter() - began)
    raw.close()
    return rate


@pytest.fixture(scope="session")
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("peer", "name", "goal"),
    [
        (of_stomp_py, "the loop stomp.py send() with the same events", "at least 1.5x"),
        (of_stomp_py_alone, "the same loop with events made beforehand", "report"),
        (of_raw_socket, "a raw socket, frame by frame", "at least 0.6x"),
    ],
)
def test_peak_rate(
    peer: Callable[[Server], float], name: str, goal: str, benchmark: BenchmarkFixture, sink: Sink, row: Row
) -> None:
    ratios: list[float] = []
    rates: list[float] = []

    def pair() -> None:
        theirs = peer(sink)
        rates.append(of_loadgen(sink))
        ratios.append(rates[-1] / theirs)

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios[1:])
    benchmark.extra_info["ratio"] = ratio
    row(f"loadgen, one process, against {name}", f"{ratio:.2f}x ({statistics.median(rates[1:]):.0f}/s)", goal)


@pytest.mark.activemq
@pytest.mark.parametrize("rate", [500, 5000])
def test_keeps_its_plan(rate: int, benchmark: BenchmarkFixture, activemq: ActiveMQ, row: Row) -> None:
    options = LoadOptions(planned=Planned(qps=rate, duration_s=20), envelope=EnvelopeOptions(topic(), persistent=False))
    runs = []
    benchmark.pedantic(lambda: runs.append(LoadRun(settings(activemq), options, Listeners(), {}).run()), rounds=1)
    run = runs[0]
    assert run.cpu_s is not None
    p99 = run.histograms[Measure.SLIP].percentiles().p99
    achieved = run.counts.sent / run.elapsed_s / rate
    row(
        f"loadgen --qps {rate} for 20 s: slip p99, achieved rate, processor",
        f"{p99:.2f} ms, {achieved * 100:.2f} %, {run.cpu_s / run.elapsed_s * 100:.0f} % of a core",
        "under 2 ms, within 0.1 %",
    )


@pytest.mark.activemq
def test_cost_of_watching(
    benchmark: BenchmarkFixture, activemq: ActiveMQ, hub: HubProcess, row: Row, tmp_path: Path
) -> None:
    place = f"/queue/bench.load.{next(_numbers)}"
    consumer = Running(
        tmp_path, "consume", "--broker", activemq.url, "--queue", place, "--phoenix", hub.url,
        "--model", "fixtures/models/noop.py:predict", "-o", "json", **CREDENTIALS,
    )  # fmt: skip
    options = LoadOptions(planned=Planned(qps=500, duration_s=20), envelope=EnvelopeOptions(place), e2e=True)
    runs = []
    run = LoadRun(settings(activemq, hub), options, Listeners(), {})
    benchmark.pedantic(lambda: runs.append(run.run()), rounds=1)
    consumer.terminate()
    consumer.finish()
    counts, cpu_s = runs[0].counts, runs[0].cpu_s
    assert (counts.sent, counts.results, counts.lost) == (10_000, 10_000, 0)
    assert cpu_s is not None
    share = cpu_s / runs[0].elapsed_s
    row("loadgen --qps 500 --e2e for 20 s: processor", f"{share * 100:.0f} % of a core", "at most 25 %")
