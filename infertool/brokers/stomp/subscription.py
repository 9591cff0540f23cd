"""A subscription to one queue that outlives its connections."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from infertool.brokers.inbox import Inbox
from infertool.brokers.port import Move, OnMessages
from infertool.brokers.stomp import transactions
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.conventions import ACTIVEMQ
from infertool.brokers.stomp.destination import is_pattern, is_wildcard
from infertool.brokers.stomp.frames import Frame, FrameError, encode_acks
from infertool.brokers.stomp.in_flight_ids import InFlightIds
from infertool.brokers.stomp.messages import to_message
from infertool.brokers.stomp.unreadable import Unreadable
from infertool.errors import RefusedError, StaleMessagesError
from infertool.message import Message


class StompSubscription:
    """A window of messages of one queue, split over as many STOMP subscriptions as ActiveMQ needs for it.

    Once two messages with one id were held at a time, each STOMP subscription gets a single message at a time (see
    `InFlightIds`). `stale_acks` counts acks that came after their connection was lost.
    """

    def __init__(
        self,
        queue: str,
        *,
        window: int,
        name: str,
        current: Callable[[], Connection | None],
        headers: Mapping[str, str],
    ) -> None:
        self._queue = queue
        # A JMS property `destination` hides the broker's own, so that is read only where the name is not known.
        self._source = "" if is_pattern(queue) or "?" in queue else queue
        self._window = window
        self._name = name
        self._headers = headers
        self._unreadable = Unreadable(queue)
        self._current = current
        self._share = ACTIVEMQ.max_unacked
        # Two messages can have one id only if they are in different queues.
        self._ids = InFlightIds(window) if is_pattern(queue) else None
        self._inbox = Inbox()
        self._attached: Connection | None = None
        self._counting = threading.Lock()
        self.stale_acks = 0

    def attach(self, connection: Connection) -> None:
        """Subscribe on `connection`, once. Raises RefusedError, ConnectionLostError; the connection has ended then."""
        if self._inbox.epoch == connection.epoch:
            return
        self._inbox.begin(connection.epoch)
        self._attached = connection
        try:
            self._subscribe(connection)
        except RefusedError as refusal:
            self._inbox.drop()
            what = f"{connection.target.address} refused the subscription to {self._queue}: {refusal.reason}"
            raise RefusedError(what, address=refusal.address, reason=refusal.reason) from None

    def _subscribe(self, connection: Connection) -> None:
        deliver = partial(self._deliver, connection.epoch)
        deadline = time.monotonic() + connection.target.receipt_timeout_s
        errors = connection.errors
        answers = [
            connection.subscribe(
                self._queue,
                subscription,
                deliver,
                ack="client-individual",
                headers={**_prefetch(size), **self._unreadable.selecting(self._headers)},
            )
            for subscription, size in self._prefetches().items()
        ]
        for answer in answers:
            connection.wait_for(answer, deadline, f"the subscription to {self._queue}")
        # A wildcard subscription has no receipt of its own, so its refusal comes without one.
        if is_wildcard(self._queue) and connection.errors != errors:
            raise RefusedError("", address=connection.target.address, reason=connection.last_error)

    def _prefetches(self) -> dict[str, int]:
        return {f"{self._name}-{n}": size for n, size in enumerate(_shares(self._window, self._share), 1)}

    def _deliver(self, epoch: int, frames: list[Frame]) -> None:
        source = self._source
        messages = [to_message(frame, source, epoch) for frame in frames]
        if not all(message.token for message in messages):
            first = next(message for message in messages if not message.token)
            raise FrameError("a message without an ack header", first.id)
        if self._ids and self._share > 1 and (twice := self._ids.add(messages)):
            self._share = 1
            if self._attached:
                self._attached.end(f"two messages with the id {twice} came at once; next time one at a time")
            return
        self._inbox.put(messages)

    def lost(self) -> None:
        """Drop what the connection delivered: it has ended, and the broker delivers that again."""
        self._inbox.drop()
        if self._attached:
            self._unreadable.note(self._attached.suspect, self._attached.reason)
            if self._attached.ack_refused:
                self._share = 1
        if self._ids:
            self._ids.clear()

    def close(self) -> None:
        """Deliver nothing more, and wake `receive`."""
        self._inbox.close()

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        """See `infertool.brokers.port.Subscription`. Returns at once when the broker was closed."""
        return self._inbox.take(max_messages, timeout_s)

    def deliver_to(self, on_messages: OnMessages) -> list[Message]:
        """See `infertool.brokers.port.DeliversOnReader`."""
        return self._inbox.deliver_to(on_messages)

    def hand_off_reader(self) -> None:
        """See `infertool.brokers.port.DeliversOnReader`."""
        if self._attached:
            self._attached.hand_off_reader()

    def ack(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.port.Subscription`."""
        connection = self._current()
        epoch = connection.epoch if connection else None
        fresh = [message.token for message in messages if message.epoch == epoch]
        if len(fresh) < len(messages):
            with self._counting:
                self.stale_acks += len(messages) - len(fresh)
        if self._ids:
            self._ids.remove(message for message in messages if message.epoch == epoch)
        if connection and fresh:
            connection.write(encode_acks(fresh))

    def move(self, moves: Sequence[Move], timeout_s: float) -> None:
        """See `infertool.brokers.port.Subscription`. More than 100 moves are several transactions, in order."""
        transactions.move(self._connection_of(moves), moves, timeout_s)

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> transactions.Transaction:
        """See `infertool.brokers.port.Subscription`."""
        return transactions.Transaction(self._connection_of(moves), moves, time.monotonic() + timeout_s)

    def _connection_of(self, moves: Sequence[Move]) -> Connection:
        connection = self._current()
        if connection is None or any(move.message.epoch != connection.epoch for move in moves):
            raise StaleMessagesError(
                "the messages belong to a connection that was lost; the broker delivers them again"
            )
        if self._ids:
            self._ids.remove(move.message for move in moves)
        return connection


def _shares(window: int, most: int) -> list[int]:
    """Split `window` into as few prefetches as possible, each at most `most`."""
    count = math.ceil(window / most)
    return [window // count + (n < window % count) for n in range(count)]


def _prefetch(size: int) -> dict[str, str]:
    """Return the SUBSCRIBE headers for a prefetch: ActiveMQ's name for it, and RabbitMQ's."""
    return {"activemq.prefetchSize": str(size), "prefetch-count": str(size)}
