"""Looking at a topic: what its group has not settled. Kafka keeps what is settled, and a look takes nothing."""

from __future__ import annotations

import heapq
import time
from typing import Any, Final

from infertool.brokers.kafka import standing
from infertool.brokers.kafka.messages import to_message
from infertool.brokers.kafka.reader import Part, Reader
from infertool.brokers.kafka.session import Session
from infertool.brokers.kafka.standing import Standing
from infertool.brokers.port import MOST_BROWSED_BYTES, Browse
from infertool.message import Message
from infertool.net.timing import left_s

# Of no assignment, so that it cannot be settled.
_NO_EPOCH: Final = 0


def browse(session: Session, topic: str, group: str, count: int, *, limit: int, timeout_s: float) -> Browse:
    """Return what `group` has not settled of a topic with `count` partitions, by the times of the messages.

    Those of one partition stay in their order. Raises `RefusedError`, `ConnectionLostError`.
    """
    deadline = time.monotonic() + timeout_s
    with Reader(session, group) as reader:
        standings = standing.of(reader, topic, count, timeout_s)
        parts = {each.partition: part(each) for each in standings if each.unsettled}
        size = sum(each.unsettled for each in standings)
        if not parts:
            return Browse([], complete=True, depth=0, note=_note(group, count))
        found = reader.read(
            topic, parts, most=limit, most_bytes=MOST_BROWSED_BYTES, timeout_s=max(1.0, left_s(deadline))
        )
    merged = list(heapq.merge(*found.records.values(), key=_time))
    messages = [_message(record) for record in merged[:limit]]
    complete = found.all and len(merged) <= limit
    return Browse(messages, complete=complete, depth=len(messages) if complete else size, note=_note(group, count))


def part(each: Standing) -> Part:
    """Return what of a partition is to be read."""
    return Part(start=each.start, end=each.end, wanted=lambda offset: not each.is_settled(offset))


def _time(record: Any) -> int:
    return int(record.timestamp()[1])


def _message(record: Any) -> Message:
    partition = f"{record.topic()}/{record.partition()}"
    return to_message(record, partition=partition, epoch=_NO_EPOCH, redelivered=False)


def _note(group: str, count: int) -> str:
    order = ", in the order of their times" if count > 1 else ""
    return f"shown is what the group {group} has not settled{order}"
