"""A queue of one connection's own, for the replies to what it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pika import spec

from infertool.brokers import callbacks
from infertool.brokers.amqp import declare
from infertool.brokers.amqp.channel import Receiving
from infertool.brokers.amqp.messages import to_message
from infertool.brokers.port import OnMessages
from infertool.message import Message

if TYPE_CHECKING:
    from infertool.brokers.amqp.session import Session


class _Receiver(Receiving):
    """Takes replies, which need no ack, on the publishing connection: it has the requests, too."""

    def __init__(self, session: Session, on_replies: OnMessages) -> None:
        super().__init__(session, session.publishing, on_replies)
        self.queue = ""

    def begin(self) -> None:
        """Make the queue, and have its messages delivered. Raises RefusedError, ConnectionLostError."""
        self.open()
        self.queue = self.call(declare.own("")).queue
        self.consume(spec.Basic.Consume(queue=self.queue, no_ack=True, exclusive=True))

    def on_content(self, method: bytes, head: bytes, body: bytes) -> None:  # noqa: ARG002  # replies are not acked
        """See `Channel`."""
        self._messages.append(to_message(head, body, self.queue, self.session.epoch, "", redelivered=False))

    def on_cancelled(self) -> None:
        """See `Receiving`: the next connection has another queue."""
        self.session.end(f"the queue {self.queue}, for replies, was deleted")


class AmqpReplies:
    """See `infertool.brokers.port.Replies`, and `infertool.brokers.supervisor.Attached`."""

    def __init__(self, on_replies: OnMessages) -> None:
        self._on_replies = on_replies
        self._receiver: _Receiver | None = None
        self._closed = False

    @property
    def address(self) -> str | None:
        """See `infertool.brokers.port.Replies`."""
        receiver = self._receiver
        return receiver.queue if receiver and receiver.queue and not receiver.connection.reason else None

    def attach(self, session: Session) -> None:
        """Make a queue on a new connection. Raises RefusedError, ConnectionLostError."""
        if self._closed:
            return
        receiver = _Receiver(session, self._deliver)
        receiver.begin()
        self._receiver = receiver

    def lost(self) -> None:
        """Forget the queue, which ended with its connection."""
        self._receiver = None

    def close(self) -> None:
        """See `infertool.brokers.port.Replies`."""
        self._closed = True
        receiver, self._receiver = self._receiver, None
        if receiver:
            receiver.abandon()

    def _deliver(self, messages: list[Message]) -> None:
        if not self._closed:
            callbacks.tell(self._on_replies, messages, callbacks.REPLIES)
