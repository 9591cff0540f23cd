"""Confirmed sends: an idempotent producer, and the thread that gets its delivery reports.

Kafka refuses a batch as a whole when it is too large for the topic, so a message that was refused for that is sent once
more by itself, with another producer, before it counts as refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException

from infertool.brokers import callbacks
from infertool.brokers.kafka import errors
from infertool.brokers.kafka.messages import Record, to_record
from infertool.brokers.port import OnEnds, OnSent
from infertool.errors import InfertoolError, ReceiptTimeoutError, RefusedError
from infertool.message import Outgoing
from infertool.net.timing import left_s

if TYPE_CHECKING:
    from infertool.brokers.kafka.session import Session

_MOST_OPEN: Final = 2000
_MOST_BYTES: Final = 32 * 1024 * 1024
_POLL_S: Final = 0.1
# What is sent before librdkafka has its id as an idempotent producer waits 0.5 s for it; the id comes in 30 ms.
_WARM_UP_S: Final = 0.05
# Sends each message by itself.
ALONE: Final[dict[str, Any]] = {"batch.num.messages": 1}
TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_End = tuple[OnEnds, Any, Record, KafkaError | None]


class Producer:
    """Every send is answered exactly once, by this producer's thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._address = session.address
        self._timeout_s = session.clients.settings.receipt_timeout_s
        self._client: Any = session.clients.producer(error_cb=self._on_error)
        self._alone: Any = None
        self._changed = threading.Condition()
        self._open = 0
        self._bytes = 0
        # Why nothing more can be sent.
        self.lost: InfertoolError | None = None
        # Ends that one poll brought, not yet told: a fatal error shows only after it.
        self._ended: list[_End] = []
        self._thread = threading.Thread(target=self._run, name="infertool-kafka-sends", daemon=True)
        self._thread.start()
        time.sleep(_WARM_UP_S)

    def send(self, outgoing: Outgoing, on_sent: OnSent, room_s: float | None) -> None:
        """Send. Waits while 2000 sends, or 32 MiB, are unconfirmed.

        Raises RefusedError for what Kafka cannot hold, ReceiptTimeoutError when there was no room for `room_s`, by
        default the time of a receipt.
        """
        record = to_record(outgoing, self._address)
        self._wait_for_room(self._timeout_s if room_s is None else room_s)
        self._send(record, partial(_tell_one, on_sent), None)

    def send_all(self, messages: Sequence[tuple[Outgoing, Any]], on_ends: OnEnds) -> None:
        """See `infertool.brokers.port.Broker`."""
        for place, (outgoing, token) in enumerate(messages):
            try:
                record = to_record(outgoing, self._address)
                self._wait_for_room(self._timeout_s)
                self._send(record, on_ends, token)
            except RefusedError as error:
                on_ends([(token, error)])
            except InfertoolError as error:
                on_ends([(left, error) for _, left in messages[place:]])
                return

    def _wait_for_room(self, room_s: float) -> None:
        if threading.current_thread() is self._thread:
            return
        with self._changed:
            if not self._changed.wait_for(self._has_room, room_s):
                raise ReceiptTimeoutError(
                    f"{self._address} confirms nothing; a send waited in vain", address=self._address
                )

    def _has_room(self) -> bool:
        return self.lost is not None or (self._open < _MOST_OPEN and self._bytes < _MOST_BYTES)

    def _send(self, record: Record, on_ends: OnEnds, token: Any) -> None:
        size = len(record.value or b"")
        with self._changed:
            if self.lost:
                raise self.lost
            client = self._client
            self._open += 1
            self._bytes += size
        try:
            produce(client, record, partial(self._reported, record, on_ends, token))
        except (KafkaException, BufferError) as fault:
            self._done(size)
            raise self._not_taken(record, fault) from None

    def _not_taken(self, record: Record, fault: Exception) -> InfertoolError:
        if isinstance(fault, KafkaException):
            return refusal(self._session, record, fault.args[0])
        return ReceiptTimeoutError(f"{self._address} takes no messages now: the queue is full", address=self._address)

    def _reported(self, record: Record, on_ends: OnEnds, token: Any, error: KafkaError | None, _sent: Any) -> None:
        """Note a delivery report. Called within a poll."""
        if error is not None and error.code() in TOO_LARGE and not self.lost:
            try:
                produce(self._single(), record, partial(self._ended_alone, record, on_ends, token))
            except (KafkaException, BufferError, InfertoolError):
                pass
            else:
                return
        self._ended_alone(record, on_ends, token, error, _sent)

    def _ended_alone(self, record: Record, on_ends: OnEnds, token: Any, error: KafkaError | None, _sent: Any) -> None:
        self._done(len(record.value or b""))
        self._ended.append((on_ends, token, record, error))

    def _verdict(self, record: Record, error: KafkaError) -> InfertoolError:
        return self.lost or refusal(self._session, record, error)

    def _single(self) -> Any:
        if self._alone is None:
            self._alone = self._session.clients.producer(**ALONE, error_cb=self._on_error)
        return self._alone

    def _done(self, size: int) -> None:
        with self._changed:
            self._open -= 1
            self._bytes -= size
            self._changed.notify_all()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            # Of this client: the next send has another one.
            self.abandon(self._session.translated(error))

    def _run(self) -> None:
        while self.lost is None or self._open:
            try:
                self._client.poll(_POLL_S)
                if self._alone is not None:
                    self._alone.poll(0)
            except KafkaException as fault:
                self._on_error(fault.args[0])
            self._tell()
            if self.lost is not None:
                self._purge()
        # Destroyed here, and not by the garbage collector on a thread of librdkafka's.
        self._client = self._alone = None

    def _tell(self) -> None:
        """Tell of the ends of sends, each group of them at once."""
        ended, self._ended = self._ended, []
        groups: dict[OnEnds, list[tuple[Any, Exception | None]]] = {}
        for on_ends, token, record, error in ended:
            verdict = None if error is None else self._verdict(record, error)
            groups.setdefault(on_ends, []).append((token, verdict))
        for on_ends, ends in groups.items():
            callbacks.tell(on_ends, ends, callbacks.SEND)

    def _purge(self) -> None:
        for client in filter(None, (self._client, self._alone)):
            with suppress(KafkaException):
                client.purge(blocking=False)

    def flush(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` until every send has ended."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._changed.wait_for(lambda: not self._open, left_s(deadline))

    def abandon(self, error: InfertoolError) -> None:
        """End: what is not confirmed is answered with `error`. Returns before that."""
        with self._changed:
            self.lost = self.lost or error
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join()


def place(record: Record) -> str:
    """Return where a record goes, for people."""
    return record.topic if record.partition is None else f"{record.topic}/{record.partition}"


def refusal(session: Session, record: Record, error: KafkaError) -> InfertoolError:
    """Return the error for a record that was not taken."""
    if error.code() in TOO_LARGE:
        return errors.too_large(len(record.value or b""), record.topic, session.address)
    return session.translated(error, place(record))


def produce(client: Any, record: Record, on_delivery: Any) -> None:
    """Have a client send a record. Raises KafkaException, BufferError."""
    options: dict[str, Any] = {}
    if record.partition is not None:
        options["partition"] = record.partition
    if record.timestamp_ms:
        options["timestamp"] = record.timestamp_ms
    client.produce(record.topic, record.value, record.key, headers=record.headers, on_delivery=on_delivery, **options)


def _tell_one(on_sent: OnSent, ends: Sequence[tuple[Any, Exception | None]]) -> None:
    [(_, error)] = ends
    on_sent(error)
