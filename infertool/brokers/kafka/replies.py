"""Replies over Kafka: one topic for all callers, of which each instance reads one partition.

The request says which (`kafka_replyTopic`, `kafka_replyPartition`: the names of Spring's ReplyingKafkaTemplate). Two
instances that chose the same partition both get its replies, and each takes those to its own calls.

Where the partition cannot be read any more, the connection ends: what waits for replies hears of it, and the next
connection begins with a partition that can be read.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
import threading
import time
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AclOperation, OffsetSpec

from infertool.brokers import callbacks
from infertool.brokers.kafka.errors import LOGIN, reason_of, translate
from infertool.brokers.kafka.messages import to_message
from infertool.brokers.kafka.reader import take
from infertool.brokers.kafka.session import Session
from infertool.brokers.kafka.topics import Topics, begin_describe, describe
from infertool.brokers.port import OnMessages
from infertool.errors import ConnectionLostError, RefusedError, UnroutableError
from infertool.message import Message

_log = logging.getLogger(__name__)

# Callers of one process have partitions of their own while there are enough; of others it is not known.
_turns: Final = itertools.count(secrets.randbelow(2**31))
_BATCH: Final = 500
_POLL_S: Final = 0.25
_LOOK_S: Final = 5.0
# A consumer must have a group, whose right is not needed where it is not joined.
_PASSING: Final = LOGIN | {KafkaError.GROUP_AUTHORIZATION_FAILED}
_CONFIG: Final[dict[str, Any]] = {
    # A reply comes at once, not when more do.
    "fetch.wait.max.ms": 500,
    "fetch.min.bytes": 1,
    "enable.partition.eof": False,
    # A position outside the log: the topic was made anew, or its retention passed.
    "auto.offset.reset": "error",
}


class KafkaReplies:
    """See `infertool.brokers.port.Replies`, and `infertool.brokers.supervisor.Attached`.

    The partition stays over reconnects while it can be read, and is read on from where it was: what was answered
    meanwhile arrives.
    """

    def __init__(self, topic: str, topics: Topics, on_replies: OnMessages, timeout_s: float) -> None:
        self._topic = topic
        self._topics = topics
        self._on_replies = on_replies
        self._timeout_s = timeout_s
        self._partition = -1
        self._connected = False
        # The partition cannot be read any more.
        self._is_lost = False
        self._closed = threading.Event()
        self._consumer: Any = None
        # Takes the place of the consumer, whose login or TLS files changed.
        self._next: Any = None
        self._credentials: object = None
        # Where the partition ended at first.
        self._start = 0
        self._session: Session | None = None
        # The topic may be deleted, and made anew.
        self._topic_id = ""
        self._look_at = 0.0
        self._asked: Future[Any] | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str | None:
        """See `infertool.brokers.port.Replies`."""
        return f"{self._topic}/{self._partition}" if self._connected and not self._closed.is_set() else None

    def attach(self, session: Session) -> None:
        """Choose a partition, and read it from its end on. Raises RefusedError, ConnectionLostError."""
        if self._closed.is_set():
            return
        self._session, self._asked = session, None
        if self._thread is None or self._is_lost:
            self._begin(session)
        elif (now := session.clients.credentials()) is not None and now != self._credentials:
            self._next = self._made(session)
        self._connected = True

    def _begin(self, session: Session) -> None:
        self._topics.forget(self._topic)
        try:
            count = self._topics.require(session, self._topic, self._timeout_s)
        except UnroutableError as missing:
            raise RefusedError(
                f"there is no topic for replies: {missing.what}",
                address=session.address,
                reason=missing.reason,
                advice="create it with a partition for each caller, set broker.reply_topic, or set broker.declare",
            ) from None
        found = describe(session, self._topic, self._timeout_s, rights=True)
        self._check_right(session, found.authorized_operations)
        self._topic_id = str(found.topic_id)
        partition = next(_turns) % count
        part = TopicPartition(self._topic, partition)
        # Found before the first request is sent, so that no reply comes before.
        ends = session.ask_each(
            lambda admin: admin.list_offsets({part: OffsetSpec.latest()}, request_timeout=self._timeout_s),
            self._timeout_s + 1,
            of=self._topic,
        )
        self._start = next(iter(ends.values())).offset
        self._partition, self._consumer, self._next = partition, self._made(session), None
        self._assign(self._start)
        self._is_lost = False
        self._look_at = time.monotonic() + _LOOK_S
        self._thread = threading.Thread(target=self._run, name="infertool-kafka-replies", daemon=True)
        self._thread.start()

    def _check_right(self, session: Session, rights: Any) -> None:
        """Raise RefusedError if the user may not read the topic. One who may describe it learns the rest without."""
        if rights is not None and not {AclOperation.READ, AclOperation.ALL}.intersection(rights):
            denied = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
            raise session.translated(denied, f"the topic for replies, {self._topic}")

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
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            reason = self._read()
        except KafkaException as fault:
            reason = reason_of(fault.args[0])
        except Exception as fault:  # noqa: BLE001  # a thread that reads no more would look like a silent server
            _log.exception("reading replies of %s failed", self._topic)
            reason = repr(fault)
        with contextlib.suppress(KafkaException):
            self._consumer.close()
        if reason:
            self._lose(reason)

    def _read(self) -> str:
        """Deliver replies until closed; return why the partition cannot be read any more. Raises KafkaException."""
        reason = ""
        while not (reason or self._closed.is_set()):
            if self._next is not None:
                self._renew()
            records = take(self._consumer, _BATCH, _POLL_S)
            self._deliver([record for record in records if record.error() is None])
            errors = [error for record in records if (error := record.error()) is not None and _is_lasting(error)]
            reason = reason_of(errors[0]) if errors else self._look()
        return reason

    def _look(self) -> str:
        """Ask for the topic now and then; return why it is not the one that was there: librdkafka reports none."""
        now = time.monotonic()
        if self._asked is None and now >= self._look_at and self._session:
            self._look_at = now + _LOOK_S
            with contextlib.suppress(ConnectionLostError):
                self._asked = begin_describe(self._session, self._topic, self._timeout_s)
        asked = self._asked
        if asked is None or not asked.done():
            return ""
        self._asked = None
        if fault := asked.exception():
            is_lasting = isinstance(fault, KafkaException) and _is_lasting(fault.args[0])
            return reason_of(fault.args[0]) if is_lasting else ""
        return "" if str(asked.result().topic_id) == self._topic_id else "the topic was made anew"

    def _lose(self, reason: str) -> None:
        """Have the next connection begin anew: what waits for replies is told as if the connection had been lost."""
        self._is_lost = True
        self._connected = False
        if self._session:
            self._session.end(f"replies of {self._topic}/{self._partition} cannot be read: {reason}")

    def _deliver(self, records: list[Any]) -> None:
        partition = f"{self._topic}/{self._partition}"
        epoch = self._session.epoch if self._session else 0
        messages: list[Message] = [
            to_message(record, partition=partition, epoch=epoch, redelivered=False) for record in records
        ]
        if messages and not self._closed.is_set():
            callbacks.tell(self._on_replies, messages, callbacks.REPLIES)


def _is_lasting(error: KafkaError) -> bool:
    """Return True if reading does not go on by itself; a lost connection and an old login are the session's."""
    return error.code() not in _PASSING and isinstance(translate(error, ""), RefusedError)
