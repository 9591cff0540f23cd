"""A subscription to one queue that outlives its connections."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from infertool.brokers.amqp import declare
from infertool.brokers.amqp.consumer import Consumer
from infertool.brokers.amqp.conventions import CAPABILITIES
from infertool.brokers.amqp.declare import Declarer
from infertool.brokers.inbox import Inbox
from infertool.brokers.moving import ConfirmedMove, extra_seconds, move_in_steps
from infertool.brokers.port import Move, OnMessages, OnSent
from infertool.errors import (
    ConnectionLostError,
    MoveRefusedError,
    ReceiptTimeoutError,
    RefusedError,
    StaleMessagesError,
    UnroutableError,
)
from infertool.message import Message, Outgoing
from infertool.net.timing import FullJitter

if TYPE_CHECKING:
    from infertool.brokers.amqp.session import Session

_log = logging.getLogger(__name__)

# A queue that was deleted is looked for in growing intervals. Seconds.
_LOOK: Final = FullJitter(0.2, 5.0)


class AmqpSubscription:
    """See `infertool.brokers.port.Subscription` and `DeliversOnReader`. `stale_acks` counts acks that came too late."""

    def __init__(
        self,
        queue: str,
        *,
        window: int,
        exclusive: bool,
        current: Callable[[], Session | None],
        declarer: Declarer,
    ) -> None:
        self._queue = queue
        self._window = window
        self._exclusive = exclusive
        self._current = current
        self._declarer = declarer
        self._inbox = Inbox()
        self._consumer: Consumer | None = None
        # Held while consumers begin.
        self._subscribing = threading.Lock()
        self._closing = threading.Event()
        # Held while the search begins, and while it is told to end.
        self._searching = threading.Lock()
        self._searcher: threading.Thread | None = None
        self._counting = threading.Lock()
        self.stale_acks = 0

    def attach(self, session: Session) -> None:
        """Subscribe on a new connection. Raises RefusedError, ConnectionLostError.

        What is refused after a reconnect is tried again until it is not: the connection is others', too.
        """
        with self._subscribing:
            self._inbox.begin(session.epoch)
        try:
            self._subscribe(session)
        except RefusedError as refusal:
            # Whoever has a queue alone must know that it still is.
            if self._consumer is None or self._exclusive:
                self._inbox.drop()
                raise
            _log.warning("%s; it is subscribed to once it is there, and may be read", refusal.what)
            self._begin_search(session)

    def _subscribe(self, session: Session) -> None:
        self._declarer(session, self._queue)
        try:
            session.ask(declare.passively(self._queue))
        except UnroutableError:
            if not self._exclusive:
                raise
            session.ask(declare.own(self._queue))
        consumer = Consumer(session, self._queue, self._inbox, self._cancelled)
        with self._subscribing:
            if session.reason:  # the next connection may have its consumer already
                raise session.lost()
            self._consumer = consumer
            consumer.begin(self._window, exclusive=self._exclusive)

    def widen(self, window: int) -> None:
        """See `infertool.brokers.port.Widens`. An exclusive consumer stays the only one, as wide as it is."""
        with self._subscribing:
            self._window = max(self._window, window)
            consumer = None if self._exclusive else self._living()
            if consumer:
                with suppress(ConnectionLostError):
                    consumer.widen(self._window)

    def lost(self) -> None:
        """Forget what the connection delivered."""
        self._inbox.drop()

    def close(self) -> None:
        """Deliver nothing more, and wake `receive`."""
        with self._searching:
            self._closing.set()
        self._inbox.close()
        if self._searcher:
            self._searcher.join()

    def _cancelled(self, consumer: Consumer) -> None:
        """Look for the queue, which was deleted, until it is there again."""
        _log.warning("the queue %s was deleted, or its node is gone; it is subscribed to once it exists", self._queue)
        self._begin_search(consumer.session, consumer)

    def _begin_search(self, session: Session, cancelled: Consumer | None = None) -> None:
        searcher = threading.Thread(
            target=self._search, args=(session, cancelled), name="infertool-amqp-searcher", daemon=True
        )
        with self._searching:
            if not self._closing.is_set():
                searcher.start()
                self._searcher = searcher

    def _search(self, session: Session, cancelled: Consumer | None) -> None:
        if cancelled:
            with self._subscribing:
                if session.reason:  # as in `_subscribe`
                    return
                self._inbox.begin(session.epoch)
            cancelled.close()
        attempt = 1
        while not (session.reason or self._closing.wait(_LOOK.wait(attempt))):
            attempt += 1
            try:
                self._subscribe(session)
            except RefusedError:
                continue
            except ConnectionLostError:
                return
            except Exception as fault:  # noqa: BLE001  # the supervisor tries it on another connection
                _log.exception("subscribing to the queue %s failed unexpectedly", self._queue)
                session.end(str(fault))
                return
            _log.warning("the queue %s is subscribed to again", self._queue)
            return

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        """See `infertool.brokers.port.Subscription`. Returns at once when the broker was closed."""
        return self._inbox.take(max_messages, timeout_s)

    def deliver_to(self, on_messages: OnMessages) -> list[Message]:
        """See `infertool.brokers.port.DeliversOnReader`."""
        return self._inbox.deliver_to(on_messages)

    def hand_off_reader(self) -> None:
        """See `infertool.brokers.port.DeliversOnReader`."""
        if self._consumer:
            self._consumer.connection.hand_off_reader()

    def ack(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.port.Subscription`."""
        consumer = self._living()
        stale = consumer.ack(messages) if consumer else len(messages)
        if stale:
            with self._counting:
                self.stale_acks += stale

    def _living(self) -> Consumer | None:
        consumer, session = self._consumer, self._current()
        return consumer if consumer and session is consumer.session else None

    def move(self, moves: Sequence[Move], timeout_s: float) -> None:
        """See `infertool.brokers.port.Subscription`. More than 100 moves are several steps, in order."""
        move_in_steps(moves, CAPABILITIES.max_moves, timeout_s, self.start_move)

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> AmqpMove:
        """See `infertool.brokers.port.Subscription`."""
        consumer = self._living()
        messages = [move.message for move in moves]
        if consumer is None or consumer.has_stale(messages):
            raise StaleMessagesError(
                "the messages belong to a connection that was lost, or were given back; the broker delivers them again"
            )
        return AmqpMove(consumer, moves, timeout_s + extra_seconds(moves), self._declarer)


class AmqpMove(ConfirmedMove):
    """Confirmed sends, then acks that the broker has worked on. After a refusal the messages are delivered again."""

    def __init__(self, consumer: Consumer, moves: Sequence[Move], timeout_s: float, declarer: Declarer) -> None:
        self._consumer = consumer
        self._declarer = declarer
        self._taken = [move.message for move in moves]
        try:
            super().__init__(
                moves,
                timeout_s,
                send=partial(self._send, timeout_s),
                ack=self._ack_all,
                address=consumer.session.target.address,
            )
        except ReceiptTimeoutError as full:
            # The connection lives, so nobody else would deliver the messages again.
            consumer.give_back(self._taken)
            raise MoveRefusedError(full.what, reason=full.what) from None

    def commit(self) -> None:
        """See `infertool.brokers.port.Transaction`."""
        session = self._consumer.session
        try:
            super().commit()
        except MoveRefusedError:
            self._consumer.give_back(self._taken)
            raise
        except ConnectionLostError:
            if (blocked := session.publishing.blocked) and not session.reason:
                # The sends may be done when the broker takes messages again. An end would not undo them for sure, and
                # counts as a delivery for all that is unacked.
                self._consumer.give_back(self._taken)
                reason = f"it takes no messages now: {blocked}"
                raise MoveRefusedError(f"{session.target.address}: {reason}", reason=reason) from None
            session.end("a move was not confirmed in time")
            raise

    def _send(self, timeout_s: float, outgoing: Outgoing, on_sent: OnSent) -> None:
        session = self._consumer.session
        self._declarer(session, outgoing.destination)
        on_sent = self._declarer.watching(outgoing.destination, on_sent)
        session.publisher.send(outgoing, on_sent, timeout_s)

    def _ack_all(self, messages: Sequence[Message]) -> None:
        consumer = self._consumer
        if consumer.is_closed:
            raise StaleMessagesError("the queue of the messages was deleted, or its node is gone")
        if not consumer.are_open(messages):
            reason = "a message that it did not deliver here"
            consumer.session.end(f"the broker refused a move: {reason}")
            raise RefusedError(reason, address=consumer.connection.target.address, reason=reason)
        consumer.ack(messages)
        consumer.sync()
