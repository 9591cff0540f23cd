"""A subscription to one queue that outlives its connections."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from infertool.brokers.inbox import Inbox
from infertool.brokers.moving import move_in_steps
from infertool.brokers.port import Move, OnMessages, Transaction
from infertool.brokers.stomp import dialects, transactions
from infertool.brokers.stomp.apart import MoveApart, MoveSender
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.conventions import ACTIVEMQ, is_pattern, is_wildcard
from infertool.brokers.stomp.frames import Frame, FrameError, encode_acks
from infertool.brokers.stomp.unreadable import Unreadable
from infertool.errors import ConnectionLostError, OccupiedError, RefusedError, StaleMessagesError
from infertool.message import Message

_Place = tuple[str, str]


class InFlightIds:
    """Message ids by STOMP subscription, of a window of `window` messages. Thread-safe.

    ActiveMQ finds what an ACK is for by subscription and message id. Of two messages with one id that a subscription
    holds at once it takes one ACK and refuses the other. A composite SEND to several queues of one wildcard makes such.
    """

    def __init__(self, window: int) -> None:
        self._lock = threading.Lock()
        self._held: set[_Place] = set()
        self._acked: deque[_Place] = deque()
        # An ACK is on its way for no longer than it takes to deliver a window, and to ACK that.
        self._remembered = 2 * window

    def add(self, messages: Iterable[Message]) -> str:
        """Note deliveries. Return an id that the broker may hold twice now, or an empty string."""
        with self._lock:
            for message in messages:
                place = _place(message)
                if place in self._held:
                    return message.id
                self._held.add(place)
        return ""

    def remove(self, messages: Iterable[Message]) -> None:
        """Note that messages were acknowledged. The broker may not know yet, so they are remembered for a while."""
        with self._lock:
            self._acked.extend(map(_place, messages))
            while len(self._acked) > self._remembered:
                self._held.discard(self._acked.popleft())

    def clear(self) -> None:
        """Note that the connection has ended."""
        with self._lock:
            self._held.clear()
            self._acked.clear()


def _place(message: Message) -> _Place:
    return message.native.get("subscription", ""), message.id


# RabbitMQ's answer where another connection has an exclusive queue.
_OCCUPIED: Final = "resource_locked"
# Its answer where a queue was declared with other arguments.
_DECLARED: Final = "inequivalent arg"


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
        by_id: bool = False,
        exclusive: bool = False,
    ) -> None:
        self._queue = queue
        # True for a selector that looks for ids.
        self._by_id = by_id
        self._exclusive = exclusive
        # A JMS property `destination` hides the broker's own, so that is read only where the name is not known.
        self._source = "" if is_pattern(queue) or "?" in queue else queue
        self._window = window
        self._name = name
        self._headers = headers
        self._unreadable = Unreadable(queue)
        self._current = current
        self._share = ACTIVEMQ.max_unacked
        # True once RabbitMQ has refused to declare the queue, which somebody else declared with other arguments.
        self._is_declared = False
        # Two messages can have one id only if they are in different queues.
        self._ids = InFlightIds(window) if is_pattern(queue) else None
        self._inbox = Inbox()
        self._sender = MoveSender()
        self._attached: Connection | None = None
        # Held while STOMP subscriptions are made; `_subscriptions` is their number on the connection.
        self._subscribing = threading.Lock()
        self._subscriptions = 0
        self._to_message = dialects.ACTIVEMQ.message
        self._counting = threading.Lock()
        self.stale_acks = 0

    def attach(self, connection: Connection) -> None:
        """Subscribe on `connection`, once. Raises RefusedError, ConnectionLostError; the connection has ended then."""
        if self._inbox.epoch == connection.epoch:
            return
        self._inbox.begin(connection.epoch)
        self._attached = connection
        self._to_message = connection.dialect.message
        try:
            with self._subscribing:
                self._subscriptions = 0
                self._subscribe(connection, self._window)
        except RefusedError as refusal:
            self._inbox.drop()
            what = f"{connection.target.address} refused the subscription to {self._queue}: {refusal.reason}"
            kind = OccupiedError if refusal.reason.startswith(_OCCUPIED) else RefusedError
            raise kind(what, address=refusal.address, reason=refusal.reason) from None

    def widen(self, window: int) -> None:
        """See `infertool.brokers.port.Widens`: further STOMP subscriptions have what the window grows by."""
        with self._subscribing:
            more, self._window = window - self._window, window
            connection = self._current()
            # An exclusive queue gives one subscription all; messages with one id come one at a time.
            if connection is None or connection is not self._attached or self._exclusive or self._share == 1:
                return
            with suppress(ConnectionLostError):
                self._subscribe(connection, more)

    def _subscribe(self, connection: Connection, window: int) -> None:
        self._check(connection)
        deliver = partial(self._deliver, connection.epoch)
        deadline = time.monotonic() + connection.target.receipt_timeout_s
        errors = connection.errors
        dialect = connection.dialect
        headers = self._unreadable.selecting(self._headers) if dialect.selects_ids else dict(self._headers)
        headers |= dict(dialect.exclusive) if self._exclusive else {}
        answers = [
            connection.subscribe(
                dialect.place(self._queue, exists=self._is_declared),
                f"{self._name}-{number}",
                deliver,
                ack="client-individual",
                headers={**prefetch, **headers},
            )
            for number, prefetch in enumerate(dialect.prefetches(window, self._share), self._subscriptions + 1)
        ]
        self._subscriptions += len(answers)
        try:
            for answer in answers:
                connection.wait_for(answer, deadline, f"the subscription to {self._queue}")
        except (ConnectionLostError, RefusedError):
            if not dialect.errors_end or connection.errors == errors:
                raise
        # An ERROR that names no request: to RabbitMQ, Artemis, and a wildcard subscription, which has no receipt.
        if connection.errors == errors or not (dialect.errors_end or is_wildcard(self._queue)):
            return
        reason = connection.last_error
        if _DECLARED in reason and not self._is_declared:
            # The next connection subscribes without declaring it.
            self._is_declared = True
            raise ConnectionLostError(reason, address=connection.target.address)
        raise RefusedError("", address=connection.target.address, reason=reason)

    def _check(self, connection: Connection) -> None:
        """Raise RefusedError for what this kind of broker would silently ignore."""
        dialect = connection.dialect
        if not dialect.patterns and (is_pattern(self._queue) or "?" in self._queue):
            reason = f"{dialect.name} knows no patterns, lists or options of queues"
        elif self._headers.get("selector") and not dialect.capabilities.selectors:
            reason = f"{dialect.name} has no selectors"
        elif self._by_id and not dialect.selects_ids:
            reason = f"{dialect.name} cannot select a message by its id"
        elif self._exclusive and not dialect.capabilities.exclusive:
            reason = f"{dialect.name} has no exclusive subscriptions"
        else:
            return
        raise RefusedError("", address=connection.target.address, reason=reason)

    def _deliver(self, epoch: int, frames: list[Frame]) -> None:
        source = self._source
        to_message = self._to_message
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
        self._sender.end("the connection that has the messages was lost")
        if self._attached:
            attached = self._attached
            self._unreadable.note(attached.suspect, attached.reason, blocks=not attached.dialect.selects_ids)
            if self._attached.ack_refused:
                self._share = 1
        if self._ids:
            self._ids.clear()

    def close(self) -> None:
        """Deliver nothing more, and wake `receive`."""
        self._inbox.close()
        self._sender.close()

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
        """See `infertool.brokers.port.Subscription`. More than 100 moves are several steps, in order."""
        connection = self._connection_of(moves)
        begin = partial(self._begin_move, connection)
        move_in_steps(moves, connection.dialect.capabilities.max_moves, timeout_s, begin)

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> Transaction:
        """See `infertool.brokers.port.Subscription`."""
        return self._begin_move(self._connection_of(moves), moves, timeout_s)

    def _begin_move(self, connection: Connection, moves: Sequence[Move], timeout_s: float) -> Transaction:
        if not connection.dialect.counts_ends:
            return transactions.begin(connection, moves, timeout_s)
        deadline = transactions.deadline_of(moves, timeout_s)
        give_back = partial(self._give_back, connection)
        return MoveApart(connection, moves, deadline, sender=self._sender, give_back=give_back)

    def _give_back(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Have messages delivered again on the thread that reads. The broker hears nothing: it would count."""
        again = [msgspec.structs.replace(message, redelivered=True) for message in messages]
        connection.deliver_soon(partial(self._inbox.put, again))

    def _connection_of(self, moves: Sequence[Move]) -> Connection:
        connection = self._current()
        if connection is None or any(move.message.epoch != connection.epoch for move in moves):
            raise StaleMessagesError(
                "the messages belong to a connection that was lost; the broker delivers them again"
            )
        if self._ids:
            self._ids.remove(move.message for move in moves)
        return connection
