"""Partitions whose log is not the one that was read: it was cut, or its topic was made anew. Or retention passed it.

Such a log grows, and its new events have offsets that were read, or that a commit calls done. Kafka marks each event
with the epoch of the leader that wrote it, which is a later one then. An epoch goes with each commit, and is compared
with the events that the commit calls done, where they are read: the last one before its offset, and those beyond it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infertool.brokers.kafka.assignment import Assignment
from infertool.brokers.kafka.deliveries import Deliveries
from infertool.brokers.kafka.rebalance import Rebalance

_log = logging.getLogger(__name__)

_ASK_S: Final = 5.0
_AGAIN_S: Final = 1.0
# How often the cluster is asked whether the topic is still the same one.
_COMPARED_S: Final = 5.0

# Asks for a topic's description; None without a connection.
Describe = Callable[[str], Future[Any] | None]


class _Doubt(IntEnum):
    """What was seen of a log; the last one outweighs the others."""

    # It ends before events that are done. A new leader may tell so for a moment.
    SHORT = 1
    # The position is not in it.
    OUTSIDE = 2
    # It has other events than were read.
    OTHER = 3


class LogFaults:
    """Finds such partitions of a topic, and has them read where their logs begin. `on_error` is told why not yet."""

    def __init__(
        self,
        topic: str,
        *,
        deliveries: Deliveries,
        rebalance: Rebalance,
        describe: Describe,
        on_error: Callable[[KafkaError], None],
    ) -> None:
        self._topic = topic
        self._deliveries = deliveries
        self._rebalance = rebalance
        self._describe = describe
        self._on_error = on_error
        # What is asked for, of which assignments, and when to ask again.
        self._asked: tuple[Future[Any], list[Assignment]] | None = None
        self._ask_at = 0.0
        self._doubts: dict[Assignment, _Doubt] = {}
        self._due = 0.0

    def outside(self, assignment: Assignment) -> None:
        """Note that the position is not in the log, as librdkafka says."""
        self._doubt(assignment, _Doubt.OUTSIDE)

    def ended(self, assignment: Assignment, offset: int) -> None:
        """Note that the log was read to its end."""
        if offset < assignment.offsets.reach:
            self._doubt(assignment, _Doubt.SHORT)

    def is_other(self, assignment: Assignment, records: Sequence[Any]) -> bool:
        """Return True if these are not the records that the commit tells of, but later ones: they come again."""
        if self._doubts.get(assignment) is _Doubt.OTHER:
            return True
        reach, known = assignment.offsets.reach, assignment.leader_epoch
        if known is None or records[0].offset() >= reach:
            return False
        # Epochs grow with the offsets.
        last = next(record for record in reversed(records) if record.offset() < reach)
        if (last.leader_epoch() or 0) <= known:
            return False
        self._doubt(assignment, _Doubt.OTHER)
        return True

    def _doubt(self, assignment: Assignment, doubt: _Doubt) -> None:
        self._doubts[assignment] = max(doubt, self._doubts.get(assignment, doubt))

    def step(self, consumer: Consumer) -> None:
        """Look at the logs in doubt."""
        self._compare()
        if not self._doubts or self._rebalance.is_revoking or time.monotonic() < self._due:
            return
        for assignment, doubt in list(self._doubts.items()):
            if self._deliveries.find(assignment.name) is assignment:
                try:
                    first, end = consumer.get_watermark_offsets(self._place(assignment), timeout=_ASK_S)
                except KafkaException as fault:
                    self._on_error(fault.args[0])
                    self._due = time.monotonic() + _AGAIN_S
                    return
                self._resolve(consumer, assignment, doubt, first, end)
            del self._doubts[assignment]

    def _compare(self) -> None:
        """Doubt all partitions that were assigned while the topic was another one: it was made anew.

        librdkafka reads on in the new one. Kafka itself forgets what groups committed of the old one.
        """
        if self._asked and self._asked[0].done():
            (asked, assigned), self._asked = self._asked, None
            if asked.exception() is None:
                self._same(str(asked.result().topic_id), assigned)
        now = time.monotonic()
        if now >= self._ask_at and (assigned := self._deliveries.assigned):
            self._ask_at = now + _COMPARED_S
            asking = self._describe(self._topic)
            self._asked = (asking, assigned) if asking else None

    def _same(self, topic_id: str, assigned: Sequence[Assignment]) -> None:
        for assignment in assigned:
            if assignment.topic_id not in ("", topic_id):
                self._doubt(assignment, _Doubt.OTHER)
            if assignment.topic_id != topic_id:
                assignment.topic_id = topic_id
                _log.debug("%s was assigned of the topic with the id %s", assignment.name, topic_id)

    def _resolve(self, consumer: Consumer, assignment: Assignment, doubt: _Doubt, first: int, end: int) -> None:
        """Go on with a partition whose log has the events from `first` up to `end`."""
        position, reach = assignment.offsets.end, assignment.offsets.reach
        # A position within the log was outside of it, or is so by the epoch of its leader, as librdkafka found out.
        is_within = doubt is _Doubt.OUTSIDE and position is not None and position > first
        if doubt is _Doubt.OTHER or is_within or reach > end:
            _log.warning(
                "the log of %s is not the one that was read up to offset %d: it was made anew, or cut; it is read from "
                "its beginning", assignment.name, reach,
            )  # fmt: skip
            self._go_to(consumer, self._rebalance.restarted(assignment, first), first)
        elif doubt is _Doubt.OUTSIDE:
            if lost := self._deliveries.skip_to(assignment, first):
                _log.warning(
                    "%d events of %s were deleted before they were read (its retention, or an administrator)",
                    lost, assignment.name,
                )  # fmt: skip
            self._go_to(consumer, assignment, first)

    def _go_to(self, consumer: Consumer, assignment: Assignment, offset: int) -> None:
        # A partition that is not being read cannot be sought in.
        place = self._place(assignment)
        consumer.incremental_unassign([place])
        place.offset = offset
        consumer.incremental_assign([place])
        # A pause outlives an assignment.
        consumer.resume([place])
        assignment.is_paused = False

    def _place(self, assignment: Assignment) -> TopicPartition:
        return TopicPartition(self._topic, assignment.number)
