"""Kafka as confluent-kafka sees it: topics of a test's own, made, filled and looked into without infertool."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)

# What librdkafka says would go to stderr.
_log = logging.getLogger(__name__)
TIMEOUT_S = 120.0
_numbers = itertools.count(1)
# Of these the client does not say that they pass.
_PASSING = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}


@dataclass(frozen=True)
class Committed:
    """What a group has committed for a partition."""

    offset: int
    metadata: str


def headers_of(record: Message) -> list[tuple[str, bytes | None]]:
    """Return the headers of a record in their order."""
    return [*cast("Iterable[tuple[str, bytes | None]]", record.headers() or [])]


class RawKafka:
    """A Kafka, told to clients by `config`, and the topics and groups that a test makes there."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = {"logger": _log, **config}
        self._admin = AdminClient(self.config)
        self._producer = Producer({**self.config, "linger.ms": 0, "enable.idempotence": True})
        self._made: list[str] = []

    def name(self) -> str:
        """Return the name of a topic that is deleted at the end, if there is one then."""
        self._made.append(f"raw.{os.getpid()}.{next(_numbers)}")
        return self._made[-1]

    def topic(self, partitions: int = 1, *, name: str = "", replicas: int = -1, **config: object) -> str:
        """Make a topic; an underscore in a setting's name stands for a dot."""
        name = name or self.name()
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = NewTopic(name, partitions, replicas, config=settings)
        self._admin.create_topics([new], operation_timeout=TIMEOUT_S)[name].result(TIMEOUT_S)
        eventually(lambda: len(self.watermarks(name)) == partitions)
        return name

    def topics(self, *names: str, **config: object) -> None:
        """Make topics of one partition, which are deleted at the end; settings as in `topic`."""
        self._made += names
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = [NewTopic(name, 1, config=settings) for name in names]
        for done in self._admin.create_topics(new, operation_timeout=TIMEOUT_S).values():
            done.result(TIMEOUT_S)
        eventually(lambda: all(len(self.watermarks(name)) == 1 for name in names))

    def exists(self, topic: str) -> bool:
        return topic in self._admin.list_topics(timeout=TIMEOUT_S).topics

    def send(
        self,
        topic: str,
        *values: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int = -1,
        timestamp: int = 0,
    ) -> list[tuple[int, int]]:
        """Send messages that differ in value; return (partition, offset) of each, confirmed."""
        confirmed: list[tuple[int, int]] = []
        errors: list[object] = []

        def on_delivery(error: object, message: Message) -> None:
            if error:
                errors.append(error)
            else:
                confirmed.append((int(message.partition() or 0), int(message.offset() or 0)))

        def taken(value: bytes | None) -> bool:
            try:
                self._producer.produce(
                    topic, value, key, partition, on_delivery=on_delivery, timestamp=timestamp, headers=list(headers)
                )
            except BufferError:
                self._producer.poll(0.1)
                return False
            except KafkaException as error:
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                    raise
                # It is new.
                self._producer.list_topics(topic, timeout=TIMEOUT_S)
                return False
            return True

        for value in values:
            while not taken(value):
                pass
        self._producer.flush(TIMEOUT_S)
        assert not errors, errors[:3]
        assert len(confirmed) == len(values)
        return confirmed

    def all(self, topic: str, *, uncommitted: bool = False) -> list[Message]:
        """Return what a topic holds, partition by partition, in order of the offsets."""
        level = "read_uncommitted" if uncommitted else "read_committed"
        found: list[Message] = []
        with self._reader(level) as reader:
            for partition, (_, end) in self.watermarks(topic).items():
                found += _read(reader, TopicPartition(topic, partition, OFFSET_BEGINNING), end)
        return found

    def take(self, topic: str, count: int) -> list[Message]:
        """Return all that a topic holds once there are `count` messages."""
        found: list[Message] = []

        def enough() -> bool:
            found[:] = self.all(topic)
            return len(found) >= count

        eventually(enough)
        return found

    def committed(self, group: str, topic: str) -> dict[int, Committed]:
        """Return what `group` has committed, by partition; those without a commit are left out.

        Not by the admin client: its request ends the process where a node is not, or not yet, the group's (librdkafka
        5315).
        """
        found: list[TopicPartition] = []
        numbers = self._admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
        with Consumer({**self.config, "group.id": group, "enable.auto.commit": False}) as consumer:

            def known() -> bool:
                found[:] = consumer.committed([TopicPartition(topic, number) for number in numbers], timeout=TIMEOUT_S)
                return True

            eventually(lambda: _without_retriable(known))
        return {each.partition: Committed(each.offset, each.metadata or "") for each in found if each.offset >= 0}

    def commit(self, group: str, topic: str, partition: int, offset: int, metadata: str = "") -> None:
        """Commit for a group that has no members."""
        position = TopicPartition(topic, partition, offset, metadata)
        with Consumer({**self.config, "group.id": group, "enable.auto.commit": False}) as consumer:
            eventually(lambda: _without_retriable(lambda: consumer.commit(offsets=[position], asynchronous=False)))

    def watermarks(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return the first offset and the one after the last, by partition."""
        found: list[dict[int, int]] = []

        def known() -> bool:
            found[:] = [self._offsets(topic, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest())]
            return found[0].keys() == found[1].keys()

        eventually(lambda: _without_retriable(known))
        return {partition: (found[0][partition], found[1][partition]) for partition in sorted(found[0])}

    def describe(self, group: str) -> Any:
        """Return confluent-kafka's description of a group of consumers: state, members and their assignments."""
        return self._admin.describe_consumer_groups([group])[group].result(TIMEOUT_S)

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete what lies before an offset, by partition."""
        positions = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        for done in self._admin.delete_records(positions).values():
            done.result(TIMEOUT_S)

    def add_partitions(self, topic: str, total: int) -> None:
        self._admin.create_partitions([NewPartitions(topic, total)])[topic].result(TIMEOUT_S)
        eventually(lambda: len(self.watermarks(topic)) == total)

    def alter(self, topic: str, **config: object) -> None:
        """Set a topic's settings, named as in `topic`."""
        self._configure(ResourceType.TOPIC, topic, config)

    def alter_group(self, group: str, **config: object) -> None:
        """Set a group's settings, such as `share_auto_offset_reset="earliest"`."""
        self._configure(ResourceType.GROUP, group, config)

    def delete(self, topic: str) -> None:
        self._admin.delete_topics([topic], operation_timeout=TIMEOUT_S)[topic].result(TIMEOUT_S)

    def delete_group(self, group: str) -> None:
        self._admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)

    def allow(self, user: str, *operations: str, topic: str = "", group: str = "") -> None:
        """Let a user do `operations` ("READ", "WRITE", "DESCRIBE", "CREATE", ...) with a topic, or with a group."""
        bindings = [AclBinding(*_right(user, each, topic, group)) for each in operations]
        for done in self._admin.create_acls(bindings).values():
            done.result(TIMEOUT_S)
        # A broker learns it a moment after the controller has stored it.
        eventually(lambda: all(map(self._knows, bindings)))

    def forbid(self, user: str, *operations: str, topic: str = "", group: str = "") -> None:
        """Take back what `allow` gave."""
        rights = [AclBindingFilter(*_right(user, each, topic, group)) for each in operations]
        for done in self._admin.delete_acls(rights).values():
            done.result(TIMEOUT_S)
        eventually(lambda: not any(map(self._knows, rights)))

    def _knows(self, right: AclBinding | AclBindingFilter) -> bool:
        parts = (
            right.restype, right.name, right.resource_pattern_type, right.principal, right.host, right.operation,
            right.permission_type,
        )  # fmt: skip
        return bool(self._admin.describe_acls(AclBindingFilter(*parts)).result(TIMEOUT_S))

    def close(self) -> None:
        present = self._admin.list_topics(timeout=TIMEOUT_S).topics
        if names := [name for name in self._made if name in present]:
            for done in self._admin.delete_topics(names, operation_timeout=TIMEOUT_S).values():
                with contextlib.suppress(KafkaException):
                    done.result(TIMEOUT_S)

    def _offsets(self, topic: str, spec: OffsetSpec) -> dict[int, int]:
        partitions = self._admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
        asked = {TopicPartition(topic, partition): spec for partition in partitions}
        answers = self._admin.list_offsets(asked)
        return {each.partition: int(done.result(TIMEOUT_S).offset) for each, done in answers.items()}

    def _configure(self, kind: ResourceType, name: str, config: Mapping[str, object]) -> None:
        entries = [
            ConfigEntry(key.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(kind, name, incremental_configs=entries)
        self._admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)

    @contextlib.contextmanager
    def _reader(self, isolation: str) -> Iterator[Consumer]:
        settings = {"group.id": "reader", "enable.auto.commit": False, "fetch.wait.max.ms": 20}
        more = {"isolation.level": isolation, "enable.partition.eof": True}
        with Consumer({**self.config, **settings, **more}) as reader:
            yield reader


def _right(user: str, operation: str, topic: str, group: str) -> tuple[Any, ...]:
    kind, name = (ResourceType.TOPIC, topic) if topic else (ResourceType.GROUP, group)
    which = AclOperation[operation], AclPermissionType.ALLOW
    return kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", *which


def _read(reader: Consumer, start: TopicPartition, end: int) -> list[Message]:
    """Return the messages of a partition that lie before the offset `end`, or at the end of what is committed."""
    found: list[Message] = []
    if end <= 0:
        return found
    reader.assign([start])
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        assert time.monotonic() < deadline, f"{start.topic} could not be read to its end"
        message = reader.poll(1)
        if message is None:
            continue
        error = message.error()
        if error is None and int(message.offset() or 0) < end:
            found.append(message)
        elif error is None or error.code() == KafkaError._PARTITION_EOF:
            return found
        if found and int(found[-1].offset() or 0) == end - 1:
            return found


def _without_retriable(step: Callable[[], Any]) -> Any:
    """Return what `step` returns; None where it says that it would succeed later: leaders are new, or move."""
    try:
        return step()
    except KafkaException as error:
        if not error.args[0].retriable() and error.args[0].code() not in _PASSING:
            raise
        return None


def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.1)
