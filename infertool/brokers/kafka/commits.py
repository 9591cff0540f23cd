"""Commits of what is done: each second, before events are given out of which no commit tells, and when asked for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infertool.brokers.kafka.assignment import Assignment, Position
from infertool.brokers.kafka.deliveries import Deliveries
from infertool.brokers.kafka.errors import reason_of
from infertool.brokers.kafka.metadata import MOST

_log = logging.getLogger(__name__)

# What librdkafka takes for an epoch that is not known.
_NO_EPOCH: Final = -1
_INTERVAL_S: Final = 1.0
_AGAIN_S: Final = 0.25
# A broker takes so many characters at least.
_LEAST: Final = 64
# Commits fail for a while where a broker is away.
_TOLD_AFTER_S, _TOLD_EVERY_S = 30.0, 60.0
_CLOSED: Final = "the consumer was closed"


class Commits:
    """The commits of one consumer. One is under way at a time; what changes meanwhile goes with the next.

    Only the thread that polls calls a consumer: another's call waits for as long as that one polls again and again.
    `confirmed` must be made librdkafka's callback of commits.
    """

    def __init__(self, topic: str, deliveries: Deliveries, interval_s: float = _INTERVAL_S) -> None:
        self.consumer: Consumer | None = None
        self._topic = topic
        self._deliveries = deliveries
        self._interval_s = interval_s
        self._due = time.monotonic() + interval_s
        # After a failure.
        self._blocked_until = 0.0
        self._lock = threading.Lock()
        self._waiting: list[Future[None]] = []
        self._is_closed = False
        # Characters of metadata that the broker takes, as far as is known.
        self._most = MOST
        # Since when all commits failed, and when that was told.
        self._failing_since: float | None = None
        self._told_at = 0.0
        # It was told that a commit does not hold all that is done.
        self._told_cut = False
        # The commit under way, and who waits for it.
        self._sent: tuple[list[Position], list[Future[None]]] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a commit was not answered yet."""
        return self._sent is not None

    def request(self) -> Future[None]:
        """Have what is done by now committed soon, from any thread. The result comes with the confirmation."""
        future: Future[None] = Future()
        with self._lock:
            if not self._is_closed:
                self._waiting.append(future)
                return future
        _answer([future], RuntimeError(_CLOSED))
        return future

    def step(self) -> None:
        """Commit if it is time for it."""
        now = time.monotonic()
        if self._sent or now < self._blocked_until:
            return
        if self._waiting or now >= self._due or self._deliveries.is_urgent():
            self._due = now + self._interval_s
            self._send()

    def _send(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        positions = self._deliveries.positions(self._deliveries.assigned)
        if not positions or self.consumer is None:
            _answer(waiting, None)
            return
        self._sent = positions, waiting
        try:
            self.consumer.commit(offsets=self._offsets(positions), asynchronous=True)
        except KafkaException as fault:
            self._end(fault)

    def confirmed(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """Take librdkafka's word on the commit under way."""
        failed = error or next((each.error for each in partitions if each.error), None)
        self._end(KafkaException(failed) if failed else None)

    def _end(self, fault: Exception | None) -> None:
        sent, self._sent = self._sent, None
        self._blocked_until = time.monotonic() + _AGAIN_S if fault else 0.0
        if sent is None:
            return
        positions, waiting = sent
        if fault is None:
            self._failing_since = None
            self._deliveries.committed(positions)
        else:
            self._failed(fault)
        _answer(waiting, fault)

    def _failed(self, fault: Exception) -> None:
        """Note a commit that is tried again, and tell of it where that lasts."""
        _log.debug("a commit of %s failed and is tried again: %s", self._topic, fault)
        if not isinstance(fault, KafkaException) or self._shortened(fault):
            return
        now = time.monotonic()
        since = self._failing_since = self._failing_since or now
        if now - since >= _TOLD_AFTER_S and now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            reason = reason_of(fault.args[0])
            _log.warning(
                "what is done of %s was not committed for %.0f s: %s; a restart would repeat it",
                self._topic, now - since, reason,
            )  # fmt: skip

    def _shortened(self, fault: KafkaException) -> bool:
        """Take less metadata for the next commit if there was too much. Return False if that was not the fault."""
        if fault.args[0].code() != KafkaError.OFFSET_METADATA_TOO_LARGE or self._most < _LEAST:
            return False
        self._most //= 2
        _log.warning(
            "the broker takes no metadata as long as a commit of %s needs: %d bytes are tried, and a restart repeats "
            "done events that do not fit; raise the broker's offset.metadata.max.bytes to 4096",
            self._topic, self._most,
        )  # fmt: skip
        return True

    def final(self, assignments: Sequence[Assignment]) -> Exception | None:
        """Commit what is done of partitions that go, and wait for it. Return why it failed."""
        positions = self._deliveries.positions(assignments, final=True)
        if not positions or self.consumer is None:
            return None
        try:
            answered = self.consumer.commit(offsets=self._offsets(positions), asynchronous=False)
        except KafkaException as fault:
            return self.final(assignments) if self._shortened(fault) else fault
        failed = next((each.error for each in answered or () if each.error), None)
        if failed:
            return KafkaException(failed)
        self._deliveries.committed(positions)
        return None

    def end(self) -> None:
        """Expect no more of the consumer, which was closed; what waits is told so."""
        self.consumer = None
        with self._lock:
            waiting, self._waiting = self._waiting, []
        self._end(RuntimeError(_CLOSED))
        _answer(waiting, RuntimeError(_CLOSED))

    def close(self) -> None:
        """Commit nothing more, ever."""
        with self._lock:
            self._is_closed = True
        self.end()

    def _offsets(self, positions: Sequence[Position]) -> list[Any]:
        offsets = [
            TopicPartition(
                self._topic, each.assignment.number, each.offset, each.text(self._most),
                _NO_EPOCH if each.leader_epoch is None else each.leader_epoch,
            )
            for each in positions
        ]  # fmt: skip
        if not self._told_cut and any(position.is_cut for position in positions):
            self._told_cut = True
            _log.warning(
                "what is done of %s lies in more pieces than a commit can hold: a later run repeats some of it, "
                "unless what lies before it is settled by then", self._topic,
            )  # fmt: skip
        return offsets


def _answer(waiting: Sequence[Future[None]], fault: Exception | None) -> None:
    for future in waiting:
        if fault is None:
            future.set_result(None)
        else:
            future.set_exception(fault)
