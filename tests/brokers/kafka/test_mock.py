"""A subscription without a server, on librdkafka's mock cluster."""

from __future__ import annotations

from tests.support.kafkamember import MockCluster, TestClients, bodies, eventually, member


def test_a_restart_repeats_only_what_was_in_work_and_keys_keep_their_order() -> None:
    cluster = MockCluster()
    topic = cluster.topic()
    for number in range(50):
        cluster.send(topic, b"%d" % number, key=b"%d" % (number % 5))
    clients = TestClients(cluster.address)
    with member(clients, topic, order="key") as first:
        slow, *others = first.take(5)
        for _ in range(9):
            first.ack(*others)
            others = first.take(4)
            assert len({int(body) % 5 for body in bodies(others)}) == 4
        first.ack(*others)
    assert cluster.committed(topic, topic) == (0, "infertool/1 50 1 b:973ve973gA")
    with member(clients, topic, order="key") as second:
        for number in range(0, 50, 5):
            again = second.take(1)
            assert [(each.body, each.redelivered) for each in again] == [(b"%d" % number, True)]
            second.ack(*again)
    assert bodies([slow]) == [b"0"]
    assert cluster.committed(topic, topic) == (50, "infertool/1 50")


def test_a_member_that_lost_its_partitions_waits_for_its_group() -> None:
    """It is not one that the group gave none: a run that ends when it is idle waits."""
    cluster = MockCluster()
    topic = cluster.topic()
    with member(TestClients(cluster.address), topic) as only:
        eventually(lambda: only.subscription.partitions == 4)
        cluster.end()
        eventually(lambda: ("revoked", frozenset(f"{topic}/{number}" for number in range(4))) in only.events)
        assert only.subscription.partitions is None
