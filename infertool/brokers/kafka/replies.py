"""Replies over Kafka: one topic for all callers, of which each instance reads one partition.

The request says which (`kafka_replyTopic`, `kafka_replyPartition`: the names of Spring's ReplyingKafkaTemplate). Two
instances that chose the same partition both get its replies, and each takes those to its own calls.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
import threading
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from infertool.brokers import callbacks
from infertool.brokers.kafka.messages import to_message
from infertool.brokers.kafka.reader import take
from infertool.brokers.kafka.session import Session
from infertool.brokers.kafka.topics import Topics
from infertool.brokers.port import OnMessages
from infertool.errors import RefusedError, UnroutableError
from infertool.message import Message

_log = logging.getLogger(__name__)

# Callers of one process have partitions of their own while there are enough; of others it is not known.
_turns: Final = itertools.count(secrets.randbelow(2**31))
_BATCH: Final = 500
_POLL_S: Final = 0.25
# A reply comes at once, not when more do.
_CONFIG: Final[dict[str, Any]] = {"fetch.wait.max.ms": 500, "fetch.min.bytes": 1, "enable.partition.eof": False}


class KafkaReplies:
    """See `infertool.brokers.port.Replies`, and `infertool.brokers.supervisor.Attached`.

    The partition stays over reconnects, and is read on from where it was: what was answered meanwhile arrives.
    """

    def __init__(self, topic: str, topics: Topics, on_replies: OnMessages, timeout_s: float) -> None:
        self._topic = topic
        self._topics = topics
        self._on_replies = on_replies
        self._timeout_s = timeout_s
        self._partition = -1
        self._connected = False
        self._closed = threading.Event()
        self._consumer: Any = None
        # Takes the place of the consumer, whose login or TLS files changed.
        self._next: Any = None
        self._credentials: object = None
        # Where the partition ended at first.
        self._start = 0
        self._epoch = 0
        self._thread = threading.Thread(target=self._run, name="infertool-kafka-replies", daemon=True)

    @property
    def address(self) -> str | None:
        """See `infertool.brokers.port.Replies`."""
        return f"{self._topic}/{self._partition}" if self._connected and not self._closed.is_set() else None

    def attach(self, session: Session) -> None:
        """Choose a partition, and read it from its end on. Raises RefusedError, ConnectionLostError."""
        if self._closed.is_set():
            return
        self._epoch = session.epoch
        if self._consumer is None:
            self._begin(session)
        elif (now := session.clients.credentials()) is not None and now != self._credentials:
            self._next = self._made(session)
        self._connected = True

    def _begin(self, session: Session) -> None:
        try:
            count = self._topics.require(session, self._topic, self._timeout_s)
        except UnroutableError as missing:
            raise RefusedError(
                f"there is no topic for replies: {missing.what}",
                address=session.address,
                reason=missing.reason,
                advice="create it with a partition for each caller, set broker.reply_topic, or set broker.declare",
            ) from None
        partition = next(_turns) % count
        part = TopicPartition(self._topic, partition)
        # Found before the first request is sent, so that no reply comes before.
        found = session.ask_each(
            lambda admin: admin.list_offsets({part: OffsetSpec.latest()}, request_timeout=self._timeout_s),
            self._timeout_s + 1,
            of=self._topic,
        )
        self._start = next(iter(found.values())).offset
        self._partition, self._consumer = partition, self._made(session)
        self._assign(self._start)
        self._thread.start()

    def _made(self, session: Session) -> Any:
        self._credentials = session.clients.credentials()
        return session.clients.consumer(f"{self._topic}.readers", **_CONFIG)

    def _assign(self, offset: int) -> None:
        self._consumer.assign([TopicPartition(self._topic, self._partition, offset)])

    def _renew(self) -> None:
        """Read on with a consumer that has the new login."""
        [at] = self._consumer.position([TopicPartition(self._topic, self._partition)])
        self._consumer.close()
        self._consumer, self._next = self._next, None
        self._assign(at.offset if at.offset >= 0 else self._start)

    def lost(self) -> None:
        """Note that there is no connection. librdkafka makes the one that reads anew by itself."""
        self._connected = False

    def close(self) -> None:
        """See `infertool.brokers.port.Replies`."""
        self._closed.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                if self._next is not None:
                    self._renew()
                self._deliver(take(self._consumer, _BATCH, _POLL_S))
        except KafkaException as fault:
            _log.warning("replies of %s are no longer read: %s", self._topic, fault.args[0].str())
            self._connected = False
        with contextlib.suppress(KafkaException):
            self._consumer.close()

    def _deliver(self, records: list[Any]) -> None:
        partition = f"{self._topic}/{self._partition}"
        messages: list[Message] = [
            to_message(record, partition=partition, epoch=self._epoch, redelivered=False)
            for record in records
            if record.error() is None
        ]
        if messages and not self._closed.is_set():
            callbacks.tell(self._on_replies, messages, callbacks.REPLIES)
