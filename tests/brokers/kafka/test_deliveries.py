"""Events between the thread that polls and those that settle them, without a broker: when a partition is read on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from infertool.brokers.kafka.assignment import Assignment, Order
from infertool.brokers.kafka.deliveries import Deliveries
from infertool.brokers.kafka.messages import KafkaMessage
from infertool.brokers.kafka.metadata import MOST, Progress, decode, encode
from infertool.message import BodyKind

BATCH = 500


def assigned(
    deliveries: Deliveries, *, number: int = 0, start: int = 0, progress: Progress | None = None, order: Order = "none"
) -> Assignment:
    assignment = Assignment("t", number, number, start=start, progress=progress, ahead=10, order=order)
    deliveries.begin([assignment])
    return assignment


def read(deliveries: Deliveries, assignment: Assignment, offsets: Sequence[int], body: bytes = b"x") -> None:
    fresh = deliveries.fresh(assignment, offsets)
    messages = [
        KafkaMessage(
            f"{assignment.name}/{offset}", "t", {}, body, BodyKind.BYTES, False, assignment.epoch, str(offset),
            partition=assignment.name, offset=offset,
        )
        for offset in fresh
    ]  # fmt: skip
    deliveries.put(assignment, messages, [b"one"] * len(messages))


@pytest.mark.parametrize("count", [1100, 1450])
def test_a_partition_is_read_on_after_a_restart_however_much_its_commit_tells(count: int) -> None:
    """Each 25th event was open at the end. With all of them open once more, the commit might not fit."""
    every, deliveries = 25, Deliveries(2000, 60_000)
    text = encode([range(first + 1, first + every) for first in range(0, count * every, every)], 0)
    assert len(text) <= MOST
    assignment = assigned(deliveries, progress=decode(text))
    last, settled, rounds = count * every, list[int](), 0
    while len(settled) < count:
        rounds += 1
        assert rounds <= 2 * last / BATCH, f"read up to {assignment.offsets.end}"
        deliveries.flow()
        if not assignment.is_paused:
            end = assignment.offsets.end or 0
            read(deliveries, assignment, range(end, min(end + BATCH, last)))
        taken = deliveries.take(2000, 0)
        settled += [message.offset for message in taken]
        deliveries.settle(taken)
    assert settled == [*range(0, last, every)]
    assert assignment.offsets.watermark == last
