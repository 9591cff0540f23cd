"""Sending many messages that are alike. Only refusals are told by librdkafka; all else is counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from infertool.brokers import headers
from infertool.brokers.kafka.messages import Record, to_record
from infertool.brokers.kafka.producer import ALONE, TOO_LARGE, produce, refusal
from infertool.brokers.kafka.session import Session
from infertool.brokers.supervisor import Supervisor
from infertool.errors import ConnectionLostError, RefusedError
from infertool.message import Outgoing
from infertool.net.timing import left_s

# Messages that may be unconfirmed: further sends wait for room.
_MOST_OPEN: Final = 20_000
_POLL_S: Final = 0.02
_CONFIG: Final[dict[str, Any]] = {"delivery.report.only.error": True, "linger.ms": 5}


class KafkaBulkSender:
    """See `infertool.brokers.port.BulkSender`."""

    def __init__(self, template: Outgoing, variable_headers: Sequence[str], supervisor: Supervisor[Session]) -> None:
        self._template = template
        self._names = variable_headers
        self._supervisor = supervisor
        self._session: Session | None = None
        self._client: Any = None
        self._alone: Any = None
        self.refused = 0
        self.reason = ""
        # Raises what a message without a body would.
        to_record(template, supervisor.address)

    def wait_for_room(self, timeout_s: float) -> bool:
        """See `infertool.brokers.port.BulkSender`."""
        return self._wait(_MOST_OPEN, timeout_s)

    def send(self, messages: Sequence[tuple[Sequence[str], bytes]]) -> None:
        """See `infertool.brokers.port.BulkSender`."""
        client = self._open()
        for values, body in messages:
            texts = dict(zip(self._names, values, strict=True))
            outgoing = headers.with_texts(self._template, texts, body)
            record = to_record(outgoing, self._supervisor.address)
            try:
                self._produce(client, record)
            except KafkaException as fault:
                self._ended(record, fault.args[0], None)
        client.poll(0)

    def _produce(self, client: Any, record: Record) -> None:
        while True:
            try:
                produce(client, record, partial(self._reported, record))
            except BufferError:
                # librdkafka's own limit, in bytes: what is there goes out first.
                client.poll(_POLL_S)
                self._supervisor.connected()
            else:
                return

    def flush(self, timeout_s: float) -> bool:
        """See `infertool.brokers.port.BulkSender`: all is confirmed."""
        return self._wait(1, timeout_s)

    def _wait(self, most: int, timeout_s: float) -> bool:
        """Wait until fewer than `most` messages are unconfirmed. Raises ConnectionLostError."""
        client = self._open()
        deadline = time.monotonic() + timeout_s
        while self._open_count() >= most and left_s(deadline):
            client.poll(_POLL_S)
            if self._alone is not None:
                self._alone.poll(0)
            self._supervisor.connected()
        return self._open_count() < most

    def _open_count(self) -> int:
        return len(self._client) + (len(self._alone) if self._alone is not None else 0)

    def _open(self) -> Any:
        session = self._supervisor.connected()
        if self._session is not session:
            for client in (self._client, self._alone):
                if client is not None:
                    client.purge()
            self._session, self._client, self._alone = session, session.clients.producer(**_CONFIG), None
        return self._client

    def _reported(self, record: Record, error: KafkaError | None, _sent: Any) -> None:
        """Note a refusal. A batch is refused as a whole: its messages are sent again, each by itself."""
        session = self._session
        if error is not None and session is not None and error.code() in TOO_LARGE:
            if self._alone is None:
                self._alone = session.clients.producer(**_CONFIG, **ALONE)
            with suppress(KafkaException, BufferError):
                produce(self._alone, record, partial(self._ended, record))
                return
        self._ended(record, error, _sent)

    def _ended(self, record: Record, error: KafkaError | None, _sent: Any) -> None:
        session = self._session
        if error is None or session is None:
            return
        fault = refusal(session, record, error)
        if isinstance(fault, RefusedError):
            self.refused += 1
            self.reason = fault.reason
        elif isinstance(fault, ConnectionLostError):
            self.reason = fault.what
