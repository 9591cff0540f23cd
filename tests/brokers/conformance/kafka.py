"""Kafka as a broker of the suite: its topics are made by the tests, and have one partition."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Self

from infertool.brokers.kafka.broker import KafkaBroker
from infertool.brokers.kafka.groups import Groups
from infertool.brokers.port import Broker
from tests.brokers.conformance.cut import Cut
from tests.support.kafka import Kafka
from tests.support.kafkaproxy import KafkaFrameProxy, KafkaProxy
from tests.support.rawkafka import RawKafka

# Of a message, for the cases with large ones; 1 MiB by default.
_MOST_BYTES = 10_000_000
_LISTENER = "SASL_PLAINTEXT"
_BESIDE = ("dlq", "a", "b", "barrier")


class _Queues(frozenset[str]):
    """The queues that a share group reads."""

    def __contains__(self, topic: object) -> bool:
        return not str(topic).endswith(tuple(f".{each}" for each in _BESIDE))


class KafkaServer:
    """A Kafka, with topics that end with the test."""

    nobodys_url = "kafka://127.0.0.1:1"

    def __init__(self, server: Kafka, *, shares: bool = False) -> None:
        self.server = server
        self._shares = shares
        self.url = f"kafka://{server.address(_LISTENER)}"
        self._raw = RawKafka(server.client())
        self._lines: dict[str, KafkaLine] = {}

    def __enter__(self) -> Self:
        # No message is so small.
        self.refused_queue = self._raw.topic(max_message_bytes=1)
        # Callers of other tests would get partitions of a common one, too.
        self.reply_topic = self._raw.topic(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def scheme(self, url: str) -> str:
        """Return a URL of the server as its brokers are opened by.

        Its group is the test's own: a group waits for members of other tests that were cut off.
        """
        scheme = url.replace("kafka://", "kafka+share://", 1) if self._shares else url
        return f"{scheme}?group={self.refused_queue}"

    def shared(self, broker: Broker) -> Broker:
        """Have a share group of the test's read the queues, but those of dead letters and the like."""
        if self._shares:
            assert isinstance(broker, KafkaBroker)
            broker._groups = Groups(f"{self.refused_queue}.share", _Queues(), are_shared=True)
        return broker

    def prepare(self, queue: str) -> None:
        others = [f"{queue}.{each}" for each in _BESIDE]
        self._raw.topics(queue, *others, max_message_bytes=_MOST_BYTES)

    @contextlib.contextmanager
    def line(self) -> Iterator[KafkaLine]:
        with KafkaLine(self.server.port(_LISTENER)) as line:
            self._lines[line.url] = line
            yield line

    @contextlib.contextmanager
    def cutting_line(self, point: Cut) -> Iterator[str]:
        cutter = _Cutter(point, _SHARE_ACKNOWLEDGE if self._shares else _OFFSET_COMMIT)
        with KafkaFrameProxy(
            self.server.port(_LISTENER), to_server=cutter.to_server, to_client=cutter.to_client
        ) as proxy:
            yield proxy.url

    def lost(self, url: str) -> None:
        """Note that a client has told of the loss of its connection."""
        if line := self._lines.get(url):
            line.is_down = False


class KafkaLine(KafkaProxy):
    """After a cut it takes no connections until its client has told that it lost one.

    The client library connects again by itself, and tells nobody of a cut that was no longer than that.
    """

    is_down = False

    def cut(self) -> None:
        self.is_down = True
        super().cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            writer.transport.abort()
        else:
            await super()._serve(reader, writer)


_PRODUCE, _OFFSET_COMMIT, _SHARE_ACKNOWLEDGE = 0, 8, 79


class _Cutter:
    """Cuts once, at a request of the first move that is made, or at the answer to it."""

    def __init__(self, point: Cut, end: int) -> None:
        self._key = _PRODUCE if point in {Cut.BEFORE_SENDS, Cut.AFTER_SENDS} else end
        self._before = point in {Cut.BEFORE_SENDS, Cut.BEFORE_END}
        self._correlations: set[bytes] = set()
        self._done = False

    def to_server(self, request: bytes) -> bytes | None:
        if self._done or int.from_bytes(request[:2]) != self._key:
            return request
        if self._before:
            self._done = True
            return None
        self._correlations.add(request[4:8])
        return request

    def to_client(self, answer: bytes) -> bytes | None:
        if self._done or answer[:4] not in self._correlations:
            return answer
        self._done = True
        return None
