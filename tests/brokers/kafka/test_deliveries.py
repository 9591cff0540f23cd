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


def read(deliveries: Deliveries, assignment: Assignment, offsets: Sequence[int], memory: int = 0) -> None:
    fresh = deliveries.fresh(assignment, offsets)
    messages = [
        KafkaMessage(
            f"{assignment.name}/{offset}", "t", {}, b"x", BodyKind.BYTES, False, assignment.epoch, str(offset),
            partition=assignment.name, offset=offset, memory=memory,
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


MIB = 1024 * 1024


def read_all(deliveries: Deliveries, assignments: Sequence[Assignment], memory: int) -> int:
    """Read batches as long as that is allowed. Return how many bytes wait."""
    while True:
        deliveries.flow()
        open_ones = [assignment for assignment in assignments if not assignment.is_paused]
        if not open_ones:
            return sum(assignment.waiting_bytes for assignment in assignments)
        for assignment in open_ones:
            end = assignment.offsets.end or 0
            read(deliveries, assignment, range(end, end + BATCH), memory)


@pytest.mark.parametrize("order", ["key", "partition"])
def test_events_that_wait_for_an_earlier_one_take_no_more_than_the_limit_of_memory(order: Order) -> None:
    """However many partitions there are; what is settled makes room for others."""
    deliveries = Deliveries(1000, 10_000)
    assignments = [assigned(deliveries, number=number, order=order) for number in range(40)]
    most = 64 * MIB + 40 * BATCH * 2500
    assert 64 * MIB <= read_all(deliveries, assignments, 2500) <= most
    before = [assignment.offsets.end or 0 for assignment in assignments]
    for _ in range(max(before)):
        deliveries.settle(deliveries.take(1000, 0))
    assert sum(assignment.waiting_bytes for assignment in assignments) == 0
    assert 64 * MIB <= read_all(deliveries, assignments, 2500) <= most
    assert all((assignment.offsets.end or 0) > end for assignment, end in zip(assignments, before, strict=True))


def test_a_partition_alone_may_have_more_than_its_share_of_memory_and_the_others_are_read_on() -> None:
    deliveries = Deliveries(1000, 100_000)
    assignments = [assigned(deliveries, number=number, order="key") for number in range(8)]
    slow, others = assignments[0], assignments[1:]
    assert 64 * MIB <= read_all(deliveries, [slow], 10_000) < 64 * MIB + BATCH * 10_000
    assert slow.is_paused
    for other in others:
        read(deliveries, other, range(10), 10_000)
    deliveries.flow()
    assert slow.is_paused
    assert not any(other.is_paused for other in others)
    assert read_all(deliveries, assignments, 10_000) <= 128 * MIB + 8 * BATCH * 10_000
