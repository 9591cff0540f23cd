"""Reads parts of a topic for a look: it joins no group, and commits nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from infertool.brokers.kafka import errors
from infertool.brokers.kafka.session import Session
from infertool.net.timing import left_s

_BATCH: Final = 500
# A group that may not be asked for is refused by a message, while librdkafka goes on waiting.
_ASK_S: Final = 1.0
_POLL_S: Final = 0.25
_CONFIG: Final[Mapping[str, Any]] = {"enable.partition.eof": True, "fetch.wait.max.ms": 50}


@dataclass(slots=True)
class Found:
    """What was read: records by partition, in order of their offsets; `all` is True if nothing was left out."""

    records: dict[int, list[Any]] = field(default_factory=dict)
    all: bool = False
    # Partitions that were read to their ends.
    ended: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Offsets of a partition, from `start` to before `end`; records that are not `wanted` are left out."""

    start: int
    end: int
    wanted: Callable[[int], bool] = lambda _offset: True


def take(consumer: Any, most: int, timeout_s: float) -> list[Any]:
    """Return what has come, waiting for the first: `consume` alone would wait until all of `most` are there."""
    first = consumer.poll(timeout_s)
    return [] if first is None else [first, *consumer.consume(most - 1, 0)]


class Reader:
    """One thread uses it at a time."""

    def __init__(self, session: Session, group: str) -> None:
        """Raise SettingsError."""
        self.session = session
        self._group = group
        self._consumer = session.clients.consumer(group, **_CONFIG)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def committed(self, topic: str, count: int, timeout_s: float) -> list[Any]:
        """Return what the group committed of `count` partitions; those without a commit are left out.

        Raises RefusedError, ConnectionLostError. An admin client would end the process if the coordinator went away at
        the wrong moment (librdkafka 4605).
        """
        parts = [TopicPartition(topic, number) for number in range(count)]
        deadline = time.monotonic() + timeout_s
        while True:
            error = None
            try:
                found = self._consumer.committed(parts, timeout=min(_ASK_S, left_s(deadline)))
                error = next((part.error for part in found if part.error), None)
            except KafkaException as fault:
                error = self._refusal() or fault.args[0]
            if error is None:
                return [part for part in found if part.offset >= 0]
            if error.code() != KafkaError._TIMED_OUT or not left_s(deadline):  # noqa: SLF001  # librdkafka's own
                raise self.session.translated(error, f"group {self._group}")

    def _refusal(self) -> KafkaError | None:
        record = self._consumer.poll(0)
        error = record.error() if record else None
        return error if error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED else None

    def read(self, topic: str, parts: Mapping[int, Part], *, most: int, most_bytes: int, timeout_s: float) -> Found:
        """Return up to `most` records of each partition, and about `most_bytes` of bodies, that come in time.

        Raises RefusedError, ConnectionLostError.
        """
        found = Found({number: [] for number in parts})
        open_parts = {number: part for number, part in parts.items() if part.start < part.end}
        deadline, size = time.monotonic() + timeout_s, 0
        cut = False
        try:
            places = [TopicPartition(topic, number, part.start) for number, part in open_parts.items()]
            self._consumer.assign(places)
            # A pause outlives an assignment.
            self._consumer.resume(places)
            while open_parts and size < most_bytes and (left := left_s(deadline)):
                for record in take(self._consumer, _BATCH, min(left, _POLL_S)):
                    number = record.partition()
                    part = open_parts.get(number)
                    if part is None:
                        continue
                    if self._is_end(record, part, topic):
                        del open_parts[number]
                        found.ended.add(number)
                    elif len(found.records[number]) == most:
                        cut = True
                        del open_parts[number]
                        self._consumer.pause([TopicPartition(topic, number)])
                    elif part.wanted(record.offset()):
                        found.records[number].append(record)
                        size += len(record.value() or b"")
            self._consumer.unassign()
        except KafkaException as fault:
            raise self.session.translated(fault.args[0], topic) from None
        found.all = not open_parts and not cut
        return found

    def _is_end(self, record: Any, part: Part, topic: str) -> bool:
        error = record.error()
        if error is None:
            return bool(record.offset() >= part.end)
        if error.code() == errors.END:
            return True
        raise self.session.translated(error, topic)
