"""Partitions come and go: what a consumer does when its group shares a topic out anew.

librdkafka calls it on the thread that polls, and goes on when it returns. What comes begins where the group's commit
says. What goes is given back in two steps: what has not begun at once, what has within some seconds, while the thread
polls on; then it is committed, and the next consumer has it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from infertool.brokers import callbacks
from infertool.brokers.kafka import metadata
from infertool.brokers.kafka.assignment import Assignment, Order
from infertool.brokers.kafka.close import Close
from infertool.brokers.kafka.commits import Commits
from infertool.brokers.kafka.deliveries import Deliveries
from infertool.brokers.partitioned import PartitionListener

_log = logging.getLogger(__name__)

# What is in work of a partition that goes may be settled for this time, or half of the group's session. Seconds.
_MOST_WAIT_S: Final = 10.0
_ASK_S: Final = 5.0
_AGAIN_S: Final = 0.2
# Events that may be given out before a commit tells of it.
_LEAST_AHEAD: Final = 10
_LISTENER: Final = "a listener of partitions"


@dataclass(frozen=True, slots=True)
class _Revocation:
    """Partitions that go. What is in work of them is waited for until `deadline` (monotonic)."""

    partitions: Sequence[TopicPartition]
    going: list[Assignment]
    deadline: float


class Rebalance:
    """The partitions of one consumer. `joined` is set while it has what the group gave it: partitions, or none."""

    def __init__(
        self,
        topic: str,
        group: str,
        *,
        deliveries: Deliveries,
        commits: Commits,
        epochs: Iterator[int],
        order: Order,
        ahead: int,
        session_timeout_s: float,
    ) -> None:
        self.joined = threading.Event()
        self.closing = threading.Event()
        self.listener: PartitionListener | None = None
        # Why the newest partitions could not be begun with: the consumer is of no use then.
        self.fault: KafkaException | None = None
        self._topic = topic
        self._group = group
        self._deliveries = deliveries
        self._commits = commits
        self._epochs = epochs
        self._order = order
        self._ahead = max(ahead, _LEAST_AHEAD)
        self._session_s = session_timeout_s
        self._wait_s = min(_MOST_WAIT_S, session_timeout_s / 2)
        self._revocation: _Revocation | None = None
        self._close = Close()
        # Partitions whose commit another program wrote, as far as that was reported.
        self._reported: set[int] = set()

    def assigned(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Begin with partitions where the group's commits say."""
        if self._close.is_under_way:
            self._close.answer(consumer)
            return
        try:
            self._begin(consumer, partitions)
        except KafkaException as fault:
            # librdkafka would lose it.
            self.fault = fault

    def _begin(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        found = self._committed(consumer, partitions) if partitions else []
        assignments = [self._begun(each) for each in found]
        self._deliveries.begin(assignments)
        starts = [self._start(each) for each in found]
        consumer.incremental_assign(starts)
        # A pause outlives an assignment.
        consumer.resume(starts)
        _log.debug("assigned of %s: %s", self._topic, sorted(each.partition for each in found))
        self.joined.set()

    def _start(self, found: Any) -> TopicPartition:
        if found.offset < 0:
            return TopicPartition(self._topic, found.partition, OFFSET_BEGINNING)
        # With an epoch, the last settled event shows whether the log is the one that was read.
        shows = found.leader_epoch is not None and found.offset > 0
        return TopicPartition(self._topic, found.partition, found.offset - shows)

    def _committed(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[Any]:
        """Return what the group committed, as long as the session may last. Raises `KafkaException`."""
        deadline = time.monotonic() + self._session_s
        while True:
            try:
                found = consumer.committed(list(partitions), timeout=_ASK_S)
            except KafkaException as raised:
                fault = raised
            else:
                failed = next((each.error for each in found if each.error), None)
                if failed is None:
                    return found
                fault = KafkaException(failed)
            if time.monotonic() > deadline or self.closing.wait(_AGAIN_S):
                raise fault

    def _begun(self, found: Any) -> Assignment:
        start = found.offset if found.offset >= 0 else None
        progress = metadata.decode(found.metadata)
        assignment = Assignment(
            self._topic, found.partition, next(self._epochs),
            start=start, progress=progress, leader_epoch=found.leader_epoch, ahead=self._ahead, order=self._order,
        )  # fmt: skip
        if progress is None and found.metadata:
            assignment.is_foreign = True
            if found.partition not in self._reported:
                self._reported.add(found.partition)
                _log.warning(
                    "another program wrote the commit of the group %s for %s: it is read from offset %d on, and the "
                    "program's note is replaced when an event is settled; give each program a group of its own",
                    self._group, assignment.name, found.offset,
                )  # fmt: skip
        return assignment

    def restarted(self, assignment: Assignment, start: int) -> Assignment:
        """Begin a partition anew that was made anew, or cut. Return its assignment."""
        self._lose([assignment])
        begun = Assignment(
            self._topic, assignment.number, next(self._epochs),
            start=start, progress=None, ahead=self._ahead, order=self._order,
        )  # fmt: skip
        # The commit is that of the other log.
        begun.committed_offset = None
        self._deliveries.begin([begun])
        return begun

    @property
    def is_revoking(self) -> bool:
        """Return True while partitions go: the group waits until they are unassigned, and none may be before."""
        return self._revocation is not None

    def revoked(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Give nothing more out of partitions that go. `step` gives them up, or `leave`."""
        if self._close.is_under_way:
            self._close.answer(consumer)
            return
        going = self._found(partitions)
        self._deliveries.leave(going)
        self._tell("revoking", going)
        self._revocation = _Revocation(partitions, going, time.monotonic() + self._wait_s)
        if not going:
            self._finish(consumer)
        else:
            # Without a word on the assignment in this callback, the client would give the partitions up after it.
            consumer.incremental_assign([])

    def step(self, consumer: Consumer) -> None:
        """Give up the partitions that go, once what is in work of them is settled or was waited for.

        The last commit waits for the one under way, as long again: librdkafka sends one again that failed, which would
        undo a later one.
        """
        if (leaving := self._revocation) is None:
            return
        late_s = time.monotonic() - leaving.deadline
        is_idle = self._deliveries.is_idle(leaving.going)
        if (is_idle or late_s >= 0) and not (self._commits.is_under_way and late_s < self._wait_s):
            self._finish(consumer)

    def _finish(self, consumer: Consumer) -> None:
        """Commit what is done of the partitions that go, and give them up."""
        if (leaving := self._revocation) is None:
            return
        self._revocation = None
        in_time = self._deliveries.is_idle(leaving.going)
        self._settle(leaving.going)
        if leaving.going and not in_time:
            _log.warning(
                "%s of the group %s go to another consumer, and not all of their events in work ended within %g s: "
                "those are repeated there", _names(leaving.going), self._group, self._wait_s,
            )  # fmt: skip
        consumer.incremental_unassign(list(leaving.partitions))

    def _settle(self, going: Sequence[Assignment]) -> None:
        """Commit what is done of partitions, the last time."""
        changed = [each for each in going if each.is_changed]
        fault = self._commits.final(going)
        self._lose(going)
        if fault and changed:
            _log.warning("what was done last of %s could not be committed, and is repeated: %s", _names(changed), fault)

    def leave(self, consumer: Consumer) -> None:
        """Commit what is done of all partitions, give them up, and close the consumer."""
        self._settle(self._deliveries.assigned)
        leaving, self._revocation = self._revocation, None
        try:
            if leaving:  # a close would wait for it
                consumer.incremental_unassign(list(leaving.partitions))
        finally:
            self._close.run(consumer)

    def lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Give up partitions that another consumer has already."""
        if self._close.is_under_way:
            self._close.answer(consumer)
            return
        self._revocation = None
        self.joined.clear()
        going = self._found(partitions)
        self._lose(going)
        if going:
            _log.warning(
                "%s of the group %s are lost, and what is in work of them is repeated: this process did not run, or "
                "was cut off, for too long, or the topic is gone", _names(going), self._group,
            )  # fmt: skip
        consumer.incremental_unassign(list(partitions))

    def lose_all(self) -> None:
        """Give up everything: the consumer cannot be used any more."""
        self.joined.clear()
        self._lose(self._deliveries.assigned)

    def _found(self, partitions: Sequence[TopicPartition]) -> list[Assignment]:
        found = [self._deliveries.find(f"{self._topic}/{each.partition}") for each in partitions]
        return [assignment for assignment in found if assignment]

    def _lose(self, assignments: Sequence[Assignment]) -> None:
        self._deliveries.end(assignments)
        self._tell("revoked", assignments)

    def _tell(self, what: str, assignments: Sequence[Assignment]) -> None:
        if self.listener and assignments:
            names = frozenset(assignment.name for assignment in assignments)
            callbacks.tell(getattr(self.listener, what), names, _LISTENER)


def _names(assignments: Sequence[Assignment]) -> str:
    return ", ".join(assignment.name for assignment in assignments)
