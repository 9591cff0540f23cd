"""How a group stands with a topic: what of each partition it has not settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from infertool.brokers.kafka.metadata import NOTHING, Progress, decode
from infertool.brokers.kafka.reader import Reader
from infertool.brokers.kafka.session import Session

# The state of a group of the newer protocol, as the question for classic groups has it.
_UNTOLD: Final = "Dead"


@dataclass(frozen=True, slots=True)
class Standing:
    """One partition. `low` is the first offset that is there, `end` the one after the last committed message.

    `committed` is the group's watermark, None without one; `progress` is what it has done beyond that. `gaps` of the
    unsettled offsets are known to be no messages.
    """

    partition: int
    low: int
    end: int
    committed: int | None = None
    progress: Progress = NOTHING
    gaps: int = 0

    @property
    def start(self) -> int:
        """The first offset that may be unsettled."""
        return max(self.low, self.committed or 0)

    @property
    def reach(self) -> int:
        """The offset behind all that is settled."""
        return max(self.committed or 0, self.progress.done[-1].stop if self.progress.done else 0)

    @property
    def lost(self) -> int:
        """The number of offsets that were deleted before they were settled."""
        return max(0, self.low - self.committed) if self.committed is not None else 0

    @property
    def unsettled(self) -> int:
        """The number of offsets that are not settled: messages, but for gaps of which is not known yet."""
        return self.unsettled_before(self.end) - self.gaps

    def unsettled_before(self, end: int) -> int:
        """Return the number of offsets before `end` that are not settled, and may be gaps."""
        done = sum(len(range(max(run.start, self.start), min(run.stop, end))) for run in self.progress.done)
        return max(0, end - self.start - done)

    @property
    def gap(self) -> int:
        """The number of offsets from the watermark to the last one that is done."""
        return max((run.stop - self.start for run in self.progress.done), default=0)

    def is_settled(self, offset: int) -> bool:
        """Return True if the group has settled this offset."""
        return offset < self.start or self.progress.is_done(offset)


def of(reader: Reader, topic: str, count: int, timeout_s: float) -> list[Standing]:
    """Return how the group of `reader` stands with `count` partitions. Raises RefusedError, ConnectionLostError."""
    session = reader.session
    parts = [TopicPartition(topic, number) for number in range(count)]
    # Before the ends: a group that goes on meanwhile would have committed what lies beyond them.
    told = reader.committed(topic, count, timeout_s)
    committed = {part.partition: (part.offset, decode(part.metadata) or NOTHING) for part in told}
    lows = _offsets(session, parts, OffsetSpec.earliest(), timeout_s)
    ends = _offsets(session, parts, OffsetSpec.latest(), timeout_s)
    found = [Standing(number, lows[number], ends[number], *committed.get(number, ())) for number in range(count)]
    return [each if each.reach <= each.end else _made_anew(each) for each in found]


def _made_anew(each: Standing) -> Standing:
    """Return the standing with a log that was made anew, or cut, below the commit: it is read from its beginning."""
    return Standing(each.partition, each.low, each.end)


def _offsets(session: Session, parts: Sequence[TopicPartition], spec: Any, timeout_s: float) -> dict[int, int]:
    told = session.ask_each(
        lambda admin: admin.list_offsets(
            dict.fromkeys(parts, spec), isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_s
        ),
        timeout_s + 1,
        of=parts[0].topic,
    )
    return {part.partition: answer.offset for part, answer in told.items()}


def members(session: Session, topic: str, group: str, timeout_s: float) -> int | None:
    """Return the number of the group's members that have a partition of the topic; None where it is not told.

    It is told of groups of the classic protocol. librdkafka's other question, `describe_consumer_groups`, ends the
    process when the coordinator goes away at the wrong moment (librdkafka 4605): not for a consumer that lives on.
    """
    try:
        told = session.groups(group, timeout_s)
    except KafkaException:
        return None
    if not told:
        return 0
    if told[0].state == _UNTOLD:
        return None
    return sum(has_partition(member.assignment or b"", topic) for member in told[0].members)


def has_partition(assignment: bytes, topic: str) -> bool:
    """Return True if an assignment has partitions of a topic: its name, with the length, and their number follow."""
    name = len(topic).to_bytes(2, "big") + topic.encode()
    _, found, rest = assignment.partition(name)
    return bool(found) and int.from_bytes(rest[:4], "big") > 0
