"""Members of a group: our subscriptions, on a real Kafka or on librdkafka's mock cluster (brokers in this process)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from infertool.brokers.kafka.subscription import KafkaSubscription
from infertool.brokers.port import OnSent
from infertool.errors import InfertoolError
from infertool.message import Message, Outgoing
from tests.support.rawkafka import RawKafka

TIMEOUT_S = 120.0


class MockCluster:
    """One broker that lives as long as this client. A topic that is produced to has `partitions` of them."""

    def __init__(self) -> None:
        known = {"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0, "linger.ms": 0}
        self._producer = Producer(known)
        broker = next(iter(self._producer.list_topics(timeout=TIMEOUT_S).brokers.values()))
        self.address = f"{broker.host}:{broker.port}"
        self._numbers = itertools.count(1)

    def end(self) -> None:
        """Have the broker go away."""
        del self._producer

    def topic(self) -> str:
        """Return the name of a new topic of four partitions, which is there."""
        name = f"events{next(self._numbers)}"
        self._producer.list_topics(name, timeout=TIMEOUT_S)
        return name

    def send(self, topic: str, *values: bytes, key: bytes | None = None, partition: int = 0) -> None:
        for value in values:
            self._producer.produce(topic, value, key, partition)
        assert self._producer.flush(TIMEOUT_S) == 0

    def send_outgoing(self, outgoing: Outgoing, on_sent: OnSent, _limit_s: float) -> None:
        self._producer.produce(
            outgoing.destination, outgoing.body, partition=0,
            on_delivery=lambda error, _: on_sent(RuntimeError(str(error)) if error else None),
        )  # fmt: skip
        self._producer.flush(TIMEOUT_S)

    def committed(self, group: str, topic: str, partition: int = 0) -> tuple[int, str]:
        """Return the offset and the metadata of a group's commit."""
        with Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0}) as consumer:
            found = consumer.committed([TopicPartition(topic, partition)], timeout=TIMEOUT_S)[0]
            return found.offset, found.metadata or ""

    def commit(self, group: str, topic: str, offset: int, text: str = "", partition: int = 0) -> None:
        with Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0}) as consumer:
            consumer.commit(offsets=[TopicPartition(topic, partition, offset, text)], asynchronous=False)


class RealCluster:
    """A real Kafka, as `MockCluster` is a false one."""

    def __init__(self, raw: RawKafka) -> None:
        self.raw = raw
        self.address = str(raw.config["bootstrap.servers"])

    def topic(self, partitions: int = 2) -> str:
        return self.raw.topic(partitions)

    def send(self, topic: str, *values: bytes, key: bytes | None = None, partition: int = 0) -> None:
        self.raw.send(topic, *values, key=key, partition=partition)

    def send_outgoing(self, outgoing: Outgoing, on_sent: OnSent, _limit_s: float) -> None:
        self.raw.send(outgoing.destination, outgoing.body)
        on_sent(None)

    def committed(self, group: str, topic: str, partition: int = 0) -> tuple[int, str]:
        found = self.raw.committed(group, topic).get(partition)
        return (found.offset, found.metadata) if found else (-1, "")

    def commit(self, group: str, topic: str, offset: int, text: str = "", partition: int = 0) -> None:
        self.raw.commit(group, topic, partition, offset, text)


@dataclass(frozen=True)
class TestClients:
    """What `client.Clients` is to a subscription."""

    __test__ = False

    address: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    member: str = ""
    protocol: str = "classic"
    session_timeout_s: float = 6.0

    def credentials(self) -> object:
        return None

    def consumer(self, group: str, **properties: Any) -> Consumer:
        classic = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
        known: dict[str, Any] = {
            "bootstrap.servers": self.address, "group.id": group, "enable.auto.commit": False,
            "enable.auto.offset.store": False, "isolation.level": "read_committed", "allow.auto.create.topics": False,
            "fetch.wait.max.ms": 20, "topic.metadata.refresh.interval.ms": 2000, "log_level": 0,
            "group.protocol": self.protocol, **(classic if self.protocol == "classic" else {}),
        }  # fmt: skip
        return Consumer({**known, **self.properties, **properties})


class Member:
    """A subscription, and what it told."""

    def __init__(
        self, clients: TestClients, topic: str, *, send: Any = None, start: bool = True, **options: Any
    ) -> None:
        self.faults: list[InfertoolError] = []
        self.events: list[tuple[str, frozenset[str]]] = []
        self.on_revoking: Callable[[frozenset[str]], None] = lambda _names: None
        known: dict[str, Any] = {
            "group": topic, "window": 1000, "order": "none", "max_gap": 10_000, "is_connected": lambda: True,
        }  # fmt: skip
        self.subscription = KafkaSubscription(
            topic, clients=clients, epochs=itertools.count(1), send=send or _refuse,
            describe=lambda _topic: None, timeout_s=TIMEOUT_S,
            on_fault=self.faults.append, **{**known, **options},
        )  # fmt: skip
        self.subscription.listen(self)
        self.subscription.start()

    def revoking(self, partitions: frozenset[str]) -> None:
        self.events.append(("revoking", partitions))
        self.on_revoking(partitions)

    def revoked(self, partitions: frozenset[str]) -> None:
        self.events.append(("revoked", partitions))

    def take(self, count: int) -> list[Message]:
        """Receive so many."""
        taken: list[Message] = []

        def enough() -> bool:
            taken.extend(self.subscription.receive(count - len(taken), 0.1))
            return len(taken) >= count

        eventually(enough)
        return taken

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.subscription._deliveries.assigned}

    def ack(self, *messages: Message) -> None:
        self.subscription.ack(messages)

    def close(self) -> None:
        self.subscription.close(TIMEOUT_S)

    def kill(self) -> None:
        """End as a process does that is killed: nothing more is committed."""
        self.subscription._commits.consumer = None
        self.close()


def _refuse(outgoing: Outgoing, on_sent: OnSent, limit_s: float) -> None:
    raise AssertionError("nothing is sent here")


@contextmanager
def member(clients: TestClients, topic: str, **options: Any) -> Iterator[Member]:
    """Have a member of a group, which leaves it at the end."""
    joined = Member(clients, topic, **options)
    try:
        yield joined
    finally:
        joined.close()


def bodies(messages: Sequence[Message]) -> list[bytes]:
    return [message.body for message in messages]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + TIMEOUT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never held"
        pause.wait(0.01)
