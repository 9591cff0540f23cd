"""Topics that change while they are read, gaps in their offsets, and rights that are missing."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import Producer

from infertool.errors import RefusedError
from infertool.message import Message
from tests.support.kafka import Kafka
from tests.support.kafkamember import Member, RealCluster, TestClients, bodies, eventually, member
from tests.support.rawkafka import RawKafka

pytestmark = pytest.mark.kafka


@pytest.fixture
def cluster(raw_kafka: RawKafka) -> RealCluster:
    return RealCluster(raw_kafka)


@pytest.fixture
def clients(cluster: RealCluster) -> TestClients:
    return TestClients(cluster.address)


def test_events_that_retention_deleted_are_counted_and_told(
    cluster: RealCluster, clients: TestClients, caplog: pytest.LogCaptureFixture
) -> None:
    topic = cluster.topic(1)
    cluster.send(topic, *(b"%d" % number for number in range(100)))
    with member(clients, topic) as first:
        first.ack(*first.take(20))
    # While no one reads, and while its partition is not read on.
    cluster.raw.delete_records(topic, {0: 50})
    with caplog.at_level(logging.WARNING), member(clients, topic) as second:
        assert bodies(second.take(1)) == [b"50"]
        assert second.subscription.figures().lost == 30
    assert f"30 events of {topic}/0 were deleted before they were read" in caplog.text


def test_retention_that_deleted_all_that_was_done_is_no_loss(
    cluster: RealCluster, clients: TestClients, caplog: pytest.LogCaptureFixture
) -> None:
    topic = cluster.topic(1)
    cluster.send(topic, *(b"%d" % number for number in range(10)))
    with member(clients, topic) as first:
        first.ack(*first.take(10))
    cluster.raw.delete_records(topic, {0: 10})
    with caplog.at_level(logging.WARNING), member(clients, topic) as second:
        cluster.send(topic, b"new")
        assert bodies(second.take(1)) == [b"new"]
        assert second.subscription.figures().lost == 0
    assert topic not in caplog.text


def test_gaps_of_transactions_and_compaction_hold_nothing_back(cluster: RealCluster, clients: TestClients) -> None:
    topic = cluster.topic(1)
    writer = Producer({"bootstrap.servers": cluster.address, "transactional.id": topic})
    writer.init_transactions(60)
    for number in range(6):
        writer.begin_transaction()
        for _ in range(3):
            writer.produce(topic, b"%d" % number, partition=0)
        writer.flush(60)
        if number % 2:
            writer.abort_transaction(60)
        else:
            writer.commit_transaction(60)
    with member(clients, topic) as first:
        taken = first.take(9)
        assert bodies(taken) == [b"%d" % number for number in (0, 2, 4) for _ in range(3)]
        first.ack(*taken[1:])
        # 24 offsets, of which 9 are events and 5 lie between the newest one and the end.
        assert first.subscription.figures().gap == int(taken[-1].token) + 1
    with member(clients, topic) as second:
        assert bodies(second.take(1)) == [b"0"]
        assert second.subscription.receive(10, 0.5) == []


def test_batches_of_each_codec_are_read(cluster: RealCluster, clients: TestClients) -> None:
    topic = cluster.topic(1)
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    for codec in codecs:
        writer = Producer({"bootstrap.servers": cluster.address, "compression.codec": codec, "linger.ms": 50})
        for _ in range(20):
            writer.produce(topic, codec.encode() * 100, partition=0)
        assert writer.flush(60) == 0
    with member(clients, topic) as only:
        assert bodies(only.take(100)) == [codec.encode() * 100 for codec in codecs for _ in range(20)]


def test_a_topic_that_is_deleted_and_made_anew_is_read_on(cluster: RealCluster, clients: TestClients) -> None:
    topic = cluster.topic(1)
    cluster.send(topic, *(b"old%d" % number for number in range(30)))
    with member(clients, topic) as only:
        only.ack(*only.take(30))
        cluster.raw.delete(topic)
        eventually(lambda: not only.names)
        cluster.raw.topic(1, name=topic)
        cluster.send(topic, b"new")
        again = only.take(1)
        assert bodies(again) == [b"new"]
        only.ack(*again)


def test_partitions_that_are_added_are_read(cluster: RealCluster, clients: TestClients) -> None:
    topic = cluster.topic(1)
    with member(clients, topic) as only:
        eventually(lambda: len(only.names) == 1)
        cluster.raw.add_partitions(topic, 3)
        cluster.send(topic, b"there", partition=2)
        assert bodies(only.take(1)) == [b"there"]


def test_a_partition_that_was_paused_when_it_went_is_read_when_it_comes_back(
    cluster: RealCluster, clients: TestClients
) -> None:
    topic = cluster.topic(2)
    for partition in (0, 1):
        cluster.send(topic, *(b"%d" % number for number in range(100)), partition=partition)
    with member(clients, topic, window=20, max_gap=50) as first:
        # The first event of each partition is slow: intake stops.
        held: dict[str | None, Message] = {}

        def stopped() -> bool:
            for message in first.subscription.receive(20, 0.05):
                if held.setdefault(message.partition, message) is not message:
                    first.ack(message)
            return len(held) == 2 and all(each.is_paused for each in first.subscription._deliveries.assigned)

        eventually(stopped)
        with member(clients, topic, window=20, max_gap=50) as second:
            eventually(lambda: len(first.names) == len(second.names) == 1)
            [name] = second.names
            eventually(lambda: not _acked(second) and cluster.committed(topic, topic, int(name[-1]))[0] == 100)
        first.ack(*held.values())
        eventually(lambda: len(first.names) == 2)
        cluster.send(topic, b"after", partition=int(name[-1]))
        eventually(lambda: b"after" in bodies(_acked(first)))


def _acked(only: Member) -> list[Message]:
    taken = only.subscription.receive(20, 0.05)
    only.ack(*taken)
    return taken


def test_rights_that_are_missing_are_told(cluster: RealCluster, kafka: Kafka) -> None:
    topic = cluster.topic(1)
    guest = TestClients(kafka.address("SASL_PLAINTEXT"), kafka.client("SASL_PLAINTEXT", "guest"))
    eventually(lambda: "(TOPIC_AUTHORIZATION_FAILED)" in refusal(guest, topic, topic))
    # Rights spread over a broker after they are given.
    cluster.raw.allow("guest", "DESCRIBE", topic=topic)
    eventually(lambda: "(GROUP_AUTHORIZATION_FAILED)" in refusal(guest, topic, "forbidden"))
    cluster.raw.allow("guest", "READ", group=topic)
    eventually(lambda: "on the topic: Read" in refusal(guest, topic, topic))
    cluster.send(topic, b"at last")
    cluster.raw.allow("guest", "READ", topic=topic)
    eventually(lambda: not refusal(guest, topic, topic))
    with member(guest, topic) as only:
        assert bodies(only.take(1)) == [b"at last"]


def refusal(guest: TestClients, topic: str, group: str) -> str:
    """Return why a member cannot begin, empty if it can."""
    try:
        Member(guest, topic, group=group).close()
    except RefusedError as refused:
        return str(refused)
    return ""
