"""Deleting from a topic what its group has settled."""

from __future__ import annotations

from confluent_kafka import TopicPartition

from infertool.brokers.kafka import standing
from infertool.brokers.kafka.reader import Reader
from infertool.brokers.kafka.session import Session


def delete_settled(session: Session, topic: str, group: str, count: int, timeout_s: float) -> int:
    """Delete the records of each of `count` partitions up to the group's watermark; return the number of offsets.

    A record that is settled behind an unsettled one stays. Raises RefusedError, ConnectionLostError.
    """
    with Reader(session, group) as reader:
        standings = standing.of(reader, topic, count, timeout_s)
    settled = [each for each in standings if each.committed is not None and each.start > each.low]
    if not settled:
        return 0
    ends = [TopicPartition(topic, each.partition, each.start) for each in settled]
    session.ask_each(lambda admin: admin.delete_records(ends, request_timeout=timeout_s), timeout_s + 1, of=topic)
    return sum(each.start - each.low for each in settled)
