"""500 events a second through a model of 300 ms, on the broker's default policy, from send to a joined topic."""

from __future__ import annotations

import pytest

from infertool import brokers
from infertool.feed.topics import TopicFeed
from infertool.load.book import SendBook
from infertool.load.producer import Producer
from infertool.secret import Secret
from infertool.settings import BrokerSettings, PhoenixSettings
from tests.support.running import CREDENTIALS, Running

RATE, SECONDS = 500, 60
QUEUE = "/queue/bench.sustained"


@pytest.mark.activemq
@pytest.mark.timeout(300)
def test_sustained(benchmark, activemq, hub, row, tmp_path) -> None:
    book = SendBook()

    def note(arrivals) -> None:
        for arrival in arrivals:
            book.seen(arrival.payload["event_id"], success=arrival.event == "new_result")

    feed = TopicFeed(
        PhoenixSettings(url=hub.url), ["public:results", "public:alerts"], on_arrivals=note, on_link=lambda _: None
    )
    feed.connect()
    consumer = Running(
        tmp_path, "consume", "--broker", activemq.url, "--queue", QUEUE, "--phoenix", hub.url,
        "--model", "sim:", "--max-attempts", "1", "--concurrency", "300", "--window", "600", "-o", "json",
        **CREDENTIALS,
    )  # fmt: skip
    broker = brokers.open(BrokerSettings(url=activemq.url, user="admin", password=Secret("admin")))
    broker.connect()

    def send() -> None:
        producer = Producer(broker, book, queue=QUEUE, rate=RATE, seconds=SECONDS)
        producer.start()
        producer.join()
        assert book.wait_complete(30)

    _await_consumer(broker)
    benchmark.pedantic(send, rounds=1)
    broker.close(5)
    feed.close(1)
    consumer.terminate()
    summary = consumer.finish()
    tally = book.tally()
    assert (tally.sent, tally.lost) == (RATE * SECONDS, 0)
    assert tally.results + tally.failures == tally.sent
    assert summary["dead_lettered"] == tally.failures
    row(
        f"{RATE} events/s for {SECONDS} s, sim: (mean 300 ms), default broker policy",
        f"{tally.sent} sent, {tally.lost} lost, {tally.duplicates} duplicates, "
        f"p50 {tally.latency_ms.p50:.0f} ms, p99 {tally.latency_ms.p99:.0f} ms",
        "0 lost, p99 under 700 ms",
    )


def _await_consumer(broker) -> None:
    for _ in range(100):
        depth = broker.measure(QUEUE, 1.0)
        if depth and depth.consumers:
            return
    raise AssertionError("the consumer did not subscribe")
