"""Sending many messages that are alike: what their frames have in common is encoded once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.frames import encode, escape_value
from infertool.brokers.stomp.messages import check
from infertool.brokers.stomp.receipts import Answer
from infertool.brokers.supervisor import Supervisor
from infertool.errors import RefusedError
from infertool.message import BodyKind, Outgoing

_VERSION: Final = "1.2"
_SPECIAL: Final = re.compile(r"[\\\n\r:]")


class StompBulkSender:
    """See `infertool.brokers.port.BulkSender`."""

    def __init__(self, template: Outgoing, variable_headers: Sequence[str], supervisor: Supervisor[Connection]) -> None:
        self._supervisor = supervisor
        check(template, supervisor.address)
        # Of a text message without a body: a length, where there is to be one, is a body's own.
        self._template = replace(template, body=b"", kind=BodyKind.TEXT)
        self._lines = "".join(f"{escape_value(name, _VERSION)}:%s\n" for name in variable_headers).encode()
        self._head = ""
        self._kind = template.kind
        self._connection: Connection | None = None
        self._errors = 0
        self.refused = 0
        self.reason = ""

    def wait_for_room(self, timeout_s: float) -> bool:
        """See `infertool.brokers.port.BulkSender`."""
        return self._current().wait_until_written(timeout_s)

    def send(self, messages: Sequence[tuple[Sequence[str], bytes]]) -> None:
        """See `infertool.brokers.port.BulkSender`."""
        connection = self._current()
        frames = [self._frame(values, body) for values, body in messages]
        connection.write(b"".join(frames))

    def flush(self, timeout_s: float) -> bool:
        """See `infertool.brokers.port.BulkSender`: the broker answers an empty transaction behind them."""
        connection, answer = self._current(), Answer()
        name = connection.receipts.expect(answer, timeout_s)
        transaction = {"transaction": name}
        connection.write(encode("BEGIN", transaction) + encode("ABORT", {**transaction, "receipt": name}))
        try:
            answered = answer.wait(timeout_s)
        except RefusedError:
            # An ERROR that names no request is that of an earlier message.
            answered = False
        self._current()
        return answered

    def _current(self) -> Connection:
        self._count()
        connection = self._supervisor.connected()
        if connection is not self._connection:
            self._connection, self._errors = connection, connection.errors
            head = connection.dialect.bulk_head(self._template, self._kind).removesuffix(b"\n\0").replace(b"%", b"%%")
            self._head = (head + self._lines).decode("utf-8", "surrogateescape")
        return connection

    def _count(self) -> None:
        """Count what was refused on the connection that was used last, also where that has ended over it."""
        connection = self._connection
        if connection and connection.errors != self._errors:
            self.refused += connection.errors - self._errors
            self._errors, self.reason = connection.errors, connection.last_error

    def _frame(self, values: Sequence[str], body: bytes) -> bytes:
        if _SPECIAL.search("".join(values)):
            values = [escape_value(value, _VERSION) for value in values]
        head = (self._head % tuple(values)).encode("utf-8", "surrogateescape")
        # Without a length a body ends at its first NUL, and ActiveMQ takes it for text.
        if self._kind is BodyKind.BYTES:
            return b"%bcontent-length:%d\n\n%b\0" % (head, len(body), body)
        if b"\0" in body:
            return b"%bcontent-length:%d\namq-msg-type:text\n\n%b\0" % (head, len(body), body)
        return b"%b\n%b\0" % (head, body)
