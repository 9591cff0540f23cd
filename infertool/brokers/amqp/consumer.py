"""The channel of a subscription on one connection: deliveries come, and acks and returns to the queue go."""

from __future__ import annotations

import itertools
import re
import struct
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from pika import spec

from infertool.brokers.amqp import frames
from infertool.brokers.amqp.channel import Receiving
from infertool.brokers.amqp.conventions import MOST_UNACKED
from infertool.brokers.amqp.messages import to_message
from infertool.brokers.amqp.unacked import Unacked
from infertool.brokers.inbox import Inbox
from infertool.message import Message

if TYPE_CHECKING:
    from infertool.brokers.amqp.session import Session

# Numbers of consumers. Channels have numbers, too, but a later one may have that of an earlier.
_serials: Final = itertools.count(1)
# A consumer, a delivery to it, and how often that was given back.
_TOKEN: Final = re.compile(r"[0-9]+-[0-9]+(\.[0-9]+)?")
_TAG: Final = struct.Struct(">Q?")


class Consumer(Receiving):
    """The channel of a subscription on one connection."""

    def __init__(self, session: Session, queue: str, inbox: Inbox, on_cancelled: Callable[[Consumer], None]) -> None:
        super().__init__(session, session.consuming, inbox.put)
        self._queue = queue
        self._cancelled = on_cancelled
        self._serial = str(next(_serials))
        self._settling = threading.Lock()
        self._unacked = Unacked()
        # How often open deliveries were given back, by their tags; and those that nobody has got again yet.
        self._turns: dict[int, int] = {}
        self._returned: list[Message] = []
        self._window = 1
        # Held while the prefetch of the next consumer is set, and until that consumes.
        self._prefetching = threading.Lock()
        self._is_cancelled = False
        # Nothing can be settled any more: another channel may have its number.
        self.is_closed = False
        self.epoch = session.epoch

    def begin(self, window: int, *, exclusive: bool) -> None:
        """Have the broker deliver. Raises RefusedError, ConnectionLostError."""
        self._window = min(window, MOST_UNACKED)
        self.open()
        self.call(spec.Basic.Qos(0, self._window, False))  # noqa: FBT003  # as pika has it
        self.consume(spec.Basic.Consume(queue=self._queue, exclusive=exclusive))

    def widen(self, window: int) -> None:
        """Have up to `window` messages unsettled. Raises RefusedError, ConnectionLostError.

        A prefetch counts for consumers that begin after it, so another consumer of this channel has the difference.
        """
        with self._prefetching:
            more = min(window, MOST_UNACKED) - self._window
            if more <= 0 or self._is_cancelled:
                return
            self.call(spec.Basic.Qos(0, more, False))  # noqa: FBT003  # as above
            self.consume(spec.Basic.Consume(queue=self._queue))
            self._window += more

    def sync(self) -> None:
        """Return once the broker has worked on all that was written. Raises RefusedError, ConnectionLostError."""
        with self._prefetching:
            if not self.is_closed:  # else the broker's word was that to the close
                self.call(spec.Basic.Qos(0, self._window, False))  # noqa: FBT003  # as above

    def close(self) -> None:
        """See `Channel`."""
        with self._prefetching:
            with self._settling:
                self.is_closed = True
            super().close()

    def on_content(self, method: bytes, head: bytes, body: bytes) -> None:
        """See `Channel`."""
        # Behind the method's number stands the consumer's tag.
        tag, redelivered = _TAG.unpack_from(method, 5 + method[4])
        self._unacked.newest = tag
        self._messages.append(
            to_message(head, body, self._queue, self.epoch, f"{self._serial}-{tag}", redelivered=redelivered)
        )

    def on_cancelled(self) -> None:
        """See `Receiving`. The broker cancels each consumer of the channel."""
        if not self._is_cancelled:
            self._is_cancelled = True
            self._cancelled(self)

    def ack(self, messages: Sequence[Message]) -> int:
        """Ack what is open, and return how many were not."""
        with self._settling:
            tags = self._open_tags(messages)
            if tags:
                up_to, single = self._unacked.settle(tags)
                if self._turns:
                    for tag in tags:
                        self._turns.pop(tag, None)
                self.connection.write(frames.acks(self.number, single, up_to=up_to))
        return len(messages) - len(tags)

    def give_back(self, messages: Sequence[Message]) -> None:
        """Deliver again what is open, as new deliveries.

        The broker hears nothing: it would count, and quorum queues drop what was delivered too often.
        """
        with self._settling:
            for message in messages:
                tag = self._tag(message)
                if tag and self._unacked.is_open(tag):
                    turn = self._turns[tag] = self._turns.get(tag, 0) + 1
                    token = f"{self._serial}-{tag}.{turn}"
                    self._returned.append(msgspec.structs.replace(message, redelivered=True, token=token))
            self.has_returned = bool(self._returned)

    def deliver_returned(self) -> None:
        """See `Channel`."""
        with self._settling:
            returned, self._returned = self._returned, []
            self.has_returned = False
        if returned:
            self._sink(returned)

    def are_open(self, messages: Sequence[Message]) -> bool:
        """Return True if each can be settled."""
        with self._settling:
            return len(self._open_tags(messages)) == len(messages)

    def has_stale(self, messages: Sequence[Message]) -> bool:
        """Return True if one of them was delivered by an earlier connection, or is settled."""
        with self._settling:
            return any(
                message.epoch != self.epoch
                or (_TOKEN.fullmatch(message.token) and not self._unacked.is_open(self._tag(message)))
                for message in messages
            )

    def _open_tags(self, messages: Sequence[Message]) -> list[int]:
        tags = [self._tag(message) for message in messages]
        return [tag for tag in dict.fromkeys(tags) if tag and self._unacked.is_open(tag)]

    def _tag(self, message: Message) -> int:
        serial, _, delivery = message.token.partition("-")
        if self.is_closed or message.epoch != self.epoch or serial != self._serial:
            return 0
        if not self._turns and "." not in delivery:
            return int(delivery)
        tag, _, turn = delivery.partition(".")
        return int(tag) if self._turns.get(int(tag), 0) == int(turn or 0) else 0
