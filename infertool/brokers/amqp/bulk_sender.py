"""Sending many messages that are alike. The broker's confirmations are counted, and not waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from infertool.brokers import headers
from infertool.brokers.amqp import frames, messages
from infertool.brokers.amqp.channel import Confirming
from infertool.brokers.amqp.publisher import FULL
from infertool.brokers.amqp.unacked import Unacked
from infertool.brokers.supervisor import Supervisor
from infertool.errors import ConnectionLostError, RefusedError
from infertool.message import Outgoing

if TYPE_CHECKING:
    from infertool.brokers.amqp.session import Session

# Messages that may be unconfirmed: further sends wait for room.
_MOST_OPEN: Final = 5000


class _Counting(Confirming):
    """Counts what was sent and is not confirmed."""

    def __init__(self, session: Session, sender: AmqpBulkSender) -> None:
        super().__init__(session.publishing)
        self.session = session
        self._sender = sender
        self.changed = threading.Condition()
        self.confirms = Unacked()
        self.open_count = 0

    def sent(self, count: int) -> None:
        """Note `count` more messages."""
        with self.changed:
            if self.refusal:
                # The broker closed the channel meanwhile: they are dropped.
                self._sender.refused += count
                return
            self.confirms.newest += count
            self.open_count += count

    def on_confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        with self.changed:
            count = self.confirms.settle_confirmed(tag, multiple=multiple)
            self.open_count -= count
            if refused:
                self._sender.refused += count
                self._sender.reason = FULL
            self.changed.notify_all()

    def on_content(self, method: bytes, head: bytes, body: bytes) -> None:  # noqa: ARG002  # only the queue is told
        with self.changed:
            self._sender.refused += 1
            self._sender.reason = f"there is no queue {frames.decode(method).routing_key}"

    def on_closed(self, refusal: RefusedError) -> None:
        super().on_closed(refusal)
        with self.changed:
            self._sender.refused += self.open_count
            self._sender.reason, self.open_count = refusal.reason, 0
            self.changed.notify_all()

    def lost(self, error: ConnectionLostError) -> None:
        super().lost(error)
        with self.changed:
            self.changed.notify_all()


class AmqpBulkSender:
    """See `infertool.brokers.port.BulkSender`. Each message gets an id of its own."""

    def __init__(self, template: Outgoing, variable_headers: Sequence[str], supervisor: Supervisor[Session]) -> None:
        self._template = template
        self._names = variable_headers
        self._supervisor = supervisor
        self._channel: _Counting | None = None
        self.refused = 0
        self.reason = ""
        # Raises what a message without a body would.
        messages.encoded(messages.to_fields(template, supervisor.address), supervisor.address)

    def wait_for_room(self, timeout_s: float) -> bool:
        """See `infertool.brokers.port.BulkSender`."""
        channel = self._open()
        deadline = time.monotonic() + timeout_s
        with channel.changed:
            channel.changed.wait_for(lambda: self._has_room(channel), timeout_s)
        self._supervisor.connected()
        if not self._has_room(channel) or channel.connection.blocked:
            return False
        return channel.connection.wait_until_written(max(0.0, deadline - time.monotonic()))

    def _has_room(self, channel: _Counting) -> bool:
        return bool(channel.connection.reason) or channel.open_count < _MOST_OPEN

    def send(self, messages: Sequence[tuple[Sequence[str], bytes]]) -> None:
        """See `infertool.brokers.port.BulkSender`."""
        channel = self._open()
        data = b"".join([self._frames(channel, values, body) for values, body in messages])
        channel.sent(len(messages))
        channel.connection.write(data)

    def _frames(self, channel: _Counting, values: Sequence[str], body: bytes) -> bytes:
        texts = dict(zip(self._names, values, strict=True))
        outgoing = headers.with_texts(self._template, texts, body)
        fields = messages.to_fields(outgoing, self._supervisor.address)
        encoded = messages.encoded(fields, self._supervisor.address)
        head = frames.publish_head(channel.number, self._template.destination)
        return head + frames.content(channel.number, encoded, body, channel.connection.frame_max)

    def flush(self, timeout_s: float) -> bool:
        """See `infertool.brokers.port.BulkSender`: all is confirmed."""
        channel = self._open()
        with channel.changed:
            done = channel.changed.wait_for(lambda: not channel.open_count or channel.connection.reason, timeout_s)
        self._supervisor.connected()
        return bool(done) and not channel.open_count

    def _open(self) -> _Counting:
        session = self._supervisor.connected()
        channel = self._channel
        if channel is None or channel.session is not session or channel.refusal:
            channel = _Counting(session, self)
            channel.open()
            self._channel = channel
        return channel
