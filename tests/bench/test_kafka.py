"""Kafka: infertool against the shortest programs on confluent-kafka and aiokafka, all in turn in one run."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer
from pytest_benchmark.fixture import BenchmarkFixture

from infertool import brokers
from infertool.brokers.kafka.subscription import KafkaSubscription
from infertool.message import Message
from infertool.settings.broker import BrokerSettings
from tests.bench.harness import peers
from tests.bench.harness.fixtures import Row
from tests.bench.harness.reference import NOOP, REFERENCE
from tests.bench.harness.side_by_side import compare
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka
from tests.support.running import Running

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]

PARTITIONS, EVENTS, ROUNDS = 6, 200_000, 3
# The slow ones read a part of it.
READ = {"faststream_kafka": 20_000, "aiokafka_loop": 60_000}
WINDOW = 1000
SLOW_S, SLOW_CALLS = 0.02, (50, 100, 200)
MANY, FIRST = 1_000_000, 200_000

# A model that tells, each 100 000 calls, how many objects Python has, and how many bytes malloc has given out.
TELLING = """
import ctypes, sys
from pathlib import Path

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
calls = 0

def predict(_payload):
    global calls
    calls += 1
    if calls % 100_000 == 0:
        with Path(__file__).with_suffix(".told").open("a") as told:
            print(sys.getallocatedblocks(), mallinfo2().uordblks, file=told)
    return {}
"""

LOOP = "consume(500) of confluent-kafka that stores each offset"
# Case, what runs, against which peer, goal.
ROWS = [
    (f"subscribe and ack alone, window {WINDOW}, against {LOOP}", "adapter", "bare", "at least 0.5x"),
    ("the same against aiokafka's `async for`", "adapter", "aiokafka_loop", "at least 3x"),
    (f"--publish none, no-op model, against {LOOP}", "consumer", "bare", "at least 0.5x"),
    ("the same against that loop with each body decoded and a result encoded", "consumer", "working", "report"),
    ("the same against faststream-kafka", "consumer", "faststream_kafka", "at least 3x"),
    ("the same against aiokafka's `async for`, which decodes nothing", "consumer", "aiokafka_loop", "at least 3x"),
]  # fmt: skip


def fill(server: Kafka, topic: str, count: int) -> None:
    """Send reference events with a key and the header `event_id`."""
    producer = Producer({**server.client(), "linger.ms": 20, "batch.num.messages": 1000})
    body, errors = REFERENCE.read_bytes(), list[object]()
    for number in range(count):
        while True:
            try:
                producer.produce(
                    topic, body, key=b"k-%d" % (number % 5000), headers=[("event_id", b"e-%d" % number)],
                    on_delivery=lambda error, _message: errors.append(error) if error else None,
                )  # fmt: skip
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(120) == 0
    assert not errors, errors[:3]


@pytest.fixture(scope="module")
def topic(kafka: Kafka) -> Iterator[str]:
    """Return a topic full of events: each reader has a group of its own, so that it is filled once."""
    raw = RawKafka(kafka.client())
    made = raw.topic(PARTITIONS, retention_ms=-1)
    fill(kafka, made, EVENTS)
    yield made
    raw.close()


def consume(server: Kafka, topic: str, folder: Path, *options: str, count: int) -> Running:
    return Running(
        folder, "consume", "--broker", server.topic_url(topic, group=uuid.uuid4()), "--publish", "none",
        "--max-messages", str(count), "-o", "json", *options, INFERTOOL_TELEMETRY__STATUS_INTERVAL_S="1",
    )  # fmt: skip


def adapter(server: Kafka, topic: str) -> float:
    """Return events a second of the adapter alone: each event received is acked."""
    with subscribed(server, topic, str(uuid.uuid4())) as subscription:
        left, began = EVENTS, 0.0
        while left > 0:
            messages = subscription.receive(WINDOW, 1)
            began = began or time.perf_counter()
            subscription.ack(messages)
            left -= len(messages)
        return EVENTS / (time.perf_counter() - began)


@contextmanager
def subscribed(server: Kafka, topic: str, group: str) -> Iterator[KafkaSubscription]:
    broker = brokers.open(BrokerSettings(url=server.topic_url(topic, group=group)))
    broker.connect()
    subscription = broker.subscribe(topic, window=WINDOW)
    assert isinstance(subscription, KafkaSubscription)
    yield subscription
    broker.close(10)


def test_consume_and_settle(benchmark: BenchmarkFixture, kafka: Kafka, topic: str, row: Row, tmp_path: Path) -> None:
    def peer(name: str, *more: str) -> Callable[[], float]:
        return lambda: peers.run(name, kafka.port(), topic, READ.get(name, EVENTS), *more)

    def consumer() -> float:
        summary = consume(kafka, topic, tmp_path, "--model", NOOP, count=EVENTS).finish()
        assert summary["succeeded"] == EVENTS
        return float(summary["rate"])

    runners: dict[str, Callable[[], float]] = {
        "bare": peer("confluent_loop"),
        "adapter": lambda: adapter(kafka, topic),
        "working": peer("confluent_loop", "model"),
        "consumer": consumer,
    }
    for name, needed in (("aiokafka_loop", "aiokafka"), ("faststream_kafka", "faststream")):
        if importlib.util.find_spec(needed):
            runners[name] = peer(name)
    compare(benchmark, row, runners, ROWS, title="Kafka", rounds=ROUNDS)


@pytest.mark.parametrize("calls", SLOW_CALLS)
def test_slow_model(
    calls: int, benchmark: BenchmarkFixture, kafka: Kafka, topic: str, row: Row, tmp_path: Path
) -> None:
    model, ideal = tmp_path / "slow.py", calls / SLOW_S
    model.write_text(f"import time\ndef predict(_payload):\n    time.sleep({SLOW_S})\n    return {{}}\n")
    count = min(EVENTS, int(10 * ideal))
    rates: list[float] = []
    peer: list[float] = []

    def run() -> None:
        peer.append(peers.run("confluent_threads", kafka.port(), topic, count, calls, WINDOW))
        options = ("--model", f"{model}:predict", "--window", str(WINDOW), "--concurrency", str(calls))
        rates.append(float(consume(kafka, topic, tmp_path / "logs", *options, count=count).finish()["rate"]))

    benchmark.pedantic(run, rounds=ROUNDS)
    ratio, alone = statistics.median(rates) / ideal, statistics.median(peer) / ideal
    row(
        f"Kafka: window {WINDOW}, a model of 20 ms, --concurrency {calls}, against {ideal:.0f}/s",
        f"{ratio:.2f}x (a bare pool of as many threads: {alone:.2f}x)",
        "at least 0.9x",
    )


@pytest.mark.skipif("BENCH_LONG" not in os.environ, reason="takes minutes: BENCH_LONG=1")
def test_a_million_events(benchmark: BenchmarkFixture, kafka: Kafka, row: Row, tmp_path: Path) -> None:
    raw = RawKafka(kafka.client())
    topic = raw.topic(PARTITIONS, retention_ms=-1)
    fill(kafka, topic, MANY)
    resident: list[int] = []
    model = tmp_path / "telling.py"
    model.write_text(TELLING)
    consumer = consume(kafka, topic, tmp_path, "--model", f"{model}:predict", count=MANY)

    def run() -> None:
        process = psutil.Process(consumer.process.pid)
        for wanted in range(FIRST, MANY, FIRST // 2):
            while settled(consumer.log.read_text()) < wanted and consumer.process.poll() is None:
                time.sleep(0.1)
            if consumer.process.poll() is None:
                resident.append(process.memory_info().rss)

    benchmark.pedantic(run, rounds=1)
    assert consumer.finish()["succeeded"] == MANY
    row(
        f"Kafka: memory over {MANY} events against the first {FIRST}",
        f"{max(resident) / resident[0]:.3f}x ({resident[0] / 2**20:.1f} to {max(resident) / 2**20:.1f} MiB resident)",
        "at most 1.05x",
    )
    row(
        f"Kafka: the same, each {FIRST // 2} events from {FIRST} on: resident",
        f"{', '.join(f'{size / 2**20:.0f}' for size in resident)} MiB",
        "report",
    )
    told = [line.split() for line in model.with_suffix(".told").read_text().splitlines()]
    row(
        "Kafka: the same, each 100000 events: objects of Python, and what malloc has given out",
        f"{', '.join(f'{int(blocks) // 1000}k' for blocks, _ in told)}; "
        f"{', '.join(f'{int(used) / 2**20:.0f}' for _, used in told)} MiB",
        "report",
    )
    kept = out_of_order(raw, kafka, topic)
    row(
        f"Kafka: the same, settled out of order: largest gap and metadata of a commit after {FIRST} and {MANY}",
        ", then ".join(f"{gap} offsets, {length} characters" for gap, length in kept),
        "as much",
    )
    raw.close()


def out_of_order(raw: RawKafka, server: Kafka, topic: str) -> list[tuple[int, int]]:
    """Settle all of a topic, each event some hundreds too early or late; return the figures at both points."""
    rng, held, kept = random.Random(1), list[Message](), list[tuple[int, int]]()
    group, gap, length, done = str(uuid.uuid4()), 0, 0, 0
    with subscribed(server, topic, group) as subscription:
        for round_number in itertools.count():
            came = subscription.receive(WINDOW // 4, 0.2)
            held += came
            rng.shuffle(held)
            kept_back = WINDOW // 2 if came else 0
            acked, held = held[kept_back:], held[:kept_back]
            subscription.ack(acked)
            done += len(acked)
            gap = max(gap, subscription.figures().gap)
            if round_number % 200 == 0:
                length = max([length, *(len(each.metadata) for each in raw.committed(group, topic).values())])
            if done >= FIRST and not kept:
                kept.append((gap, length))
                gap = length = 0
            if done >= MANY:
                return [*kept, (gap, length)]
    raise AssertionError


def settled(log: str) -> int:
    """Return the last count that the consumer's status lines tell."""
    lines = [line for line in log.splitlines() if " succeeded" in line]
    return int(lines[-1].split(" succeeded")[0].split()[-1]) if lines else 0
