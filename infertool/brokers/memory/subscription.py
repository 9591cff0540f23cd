"""Receiving, settling, moving and sending many messages, on the in-process broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import msgspec

from infertool.brokers import headers
from infertool.brokers.inbox import Inbox
from infertool.brokers.memory.connection import Connection
from infertool.brokers.memory.faults import Operation
from infertool.brokers.memory.queues import Stored
from infertool.brokers.moving import ConfirmedMove, move_in_steps
from infertool.brokers.partitioned import PartitionListener
from infertool.brokers.port import Capabilities, Move, OnSent, Selector
from infertool.errors import ConnectionLostError, MoveRefusedError, RefusedError, StaleMessagesError
from infertool.message import NO_TYPES, Message, Outgoing, TypedMessage

Current = Callable[[], Connection | None]


def to_message(stored: Stored, source: str, epoch: int, token: str, capabilities: Capabilities) -> Message:
    """Return one delivery of a message; a message that is only shown has epoch 0 and no token."""
    outgoing = stored.outgoing
    properties = msgspec.structs.replace(
        outgoing.properties,
        timestamp_ms=stored.sent_ms,
        delivery_count=stored.deliveries if capabilities.delivery_count else None,
    )
    return TypedMessage(
        id=stored.id,
        source=source,
        native=outgoing.headers,
        body=outgoing.body,
        kind=outgoing.kind,
        redelivered=stored.deliveries > 0,
        epoch=stored.epoch or epoch,
        token=token,
        partition=stored.partition,
        known=properties,
        header_types=outgoing.types if capabilities.header_types else NO_TYPES,
    )


def send(connection: Connection, outgoing: Outgoing) -> None:
    """Have the broker hold a message. Raises `RefusedByBroker`."""
    connection.check(outgoing)
    connection.server.send(outgoing)


class MemorySubscription:
    """See `infertool.brokers.port.Subscription`."""

    def __init__(
        self, queue: str, *, window: int, selector: Selector | None, exclusive: bool, current: Current, timeout_s: float
    ) -> None:
        self._queue = queue
        self._window = window
        self._selector = selector
        self._exclusive = exclusive
        self._current = current
        self._timeout_s = timeout_s
        self._inbox = Inbox()
        # Acks of messages that earlier connections delivered.
        self.stale_acks = 0

    def attach(self, connection: Connection) -> None:
        """Subscribe on a new connection. Raises `RefusedError`, `ConnectionLostError`."""
        self._inbox.begin(connection.epoch)
        connection.call(Operation.SUBSCRIBE, partial(self._subscribe, connection, self._window), self._timeout_s)

    def widen(self, window: int) -> None:
        """See `infertool.brokers.port.Widens`: a second consumer has what the window grows by."""
        more, self._window = window - self._window, window
        connection = self._current()
        if connection is None:
            return
        with suppress(ConnectionLostError):
            connection.call(Operation.SUBSCRIBE, partial(self._subscribe, connection, more), self._timeout_s)

    def _subscribe(self, connection: Connection, window: int) -> None:
        connection.server.subscribe(
            connection.session,
            self._queue,
            window=window,
            selector=self._selector,
            exclusive=self._exclusive,
            deliver=partial(self._deliver, connection),
            listener=self._listener,
        )

    def _listener(self) -> PartitionListener | None:
        return None

    def _deliver(self, connection: Connection, deliveries: list[tuple[str, Stored]]) -> None:
        capabilities = connection.server.capabilities
        self._inbox.put(
            [to_message(stored, self._queue, connection.epoch, token, capabilities) for token, stored in deliveries],
            connection.epoch,
        )

    def lost(self) -> None:
        """Forget what the connection delivered: it ended, and all of that comes again."""
        self._inbox.drop()

    def close(self) -> None:
        """Deliver nothing more."""
        self._inbox.close()

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        """See `infertool.brokers.port.Subscription`. Returns at once when the broker was closed."""
        return self._inbox.take(max_messages, timeout_s)

    def ack(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.port.Subscription`."""
        connection = self._current()
        fresh = [message.token for message in messages if connection and self._is_current(connection, message)]
        self.stale_acks += len(messages) - len(fresh)
        if connection and fresh:
            run = partial(self._settle, connection, fresh)
            try:
                connection.ask(Operation.ACK, run, partial(_ack_answered, connection), self._timeout_s)
            except ConnectionLostError:
                self.stale_acks += len(fresh)

    def _is_current(self, connection: Connection, message: Message) -> bool:
        return message.epoch == connection.epoch

    def _settle(self, connection: Connection, tokens: Sequence[str]) -> None:
        connection.server.settle(connection.session, tokens)

    def move(self, moves: Sequence[Move], timeout_s: float) -> None:
        """See `infertool.brokers.port.Subscription`. More than `max_moves` are several steps, in order."""
        most = self._connection_of(moves).server.capabilities.max_moves
        move_in_steps(moves, most, timeout_s, self.start_move)

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> AtomicMove | SendThenAck:
        """See `infertool.brokers.port.Subscription`."""
        connection = self._connection_of(moves)
        move = AtomicMove if connection.server.capabilities.atomic_move else SendThenAck
        return move(connection, moves, timeout_s)

    def _connection_of(self, moves: Sequence[Move]) -> Connection:
        connection = self._current()
        if connection is None or not all(self._is_current(connection, move.message) for move in moves):
            raise StaleMessagesError(
                "the messages belong to a connection that was lost; the broker delivers them again"
            )
        return connection


def _ack_answered(connection: Connection, error: Exception | None) -> None:
    if isinstance(error, RefusedError):
        # The broker holds the message for as long as the connection lives.
        connection.end(f"the broker refused to take a message as acknowledged: {error.reason}")


class AtomicMove:
    """Acks and sends, done in one step. See `infertool.brokers.port.Transaction`."""

    def __init__(self, connection: Connection, moves: Sequence[Move], timeout_s: float) -> None:
        self._connection = connection
        self._tokens = [move.message.token for move in moves]
        self._sends = [outgoing for move in moves for outgoing in move.sends]
        self._timeout_s = timeout_s
        self._taken = connection.begin(Operation.BEGIN, self._check, timeout_s)
        self._committed: Future[None]

    def commit(self) -> None:
        """See `infertool.brokers.port.Transaction`."""
        self._await(self._taken)
        run = partial(self._connection.server.commit, self._connection.session, self._tokens, self._sends)
        self._committed = self._connection.begin(Operation.COMMIT, run, self._timeout_s)

    def wait(self) -> None:
        """See `infertool.brokers.port.Transaction`."""
        self._await(self._committed)

    def _check(self) -> None:
        for outgoing in self._sends:
            self._connection.check(outgoing)
        for token in self._tokens:
            self._connection.session.find(token)

    def _await(self, answer: Future[None]) -> None:
        with _ending(self._connection):
            try:
                self._connection.wait(answer, self._timeout_s)
            except RefusedError as refusal:
                places = ", ".join(sorted({outgoing.destination for outgoing in self._sends}))
                raise _refused(self._connection, places, refusal) from None


class SendThenAck(ConfirmedMove):
    """Sends, and acks one by one after all of them are confirmed."""

    def __init__(self, connection: Connection, moves: Sequence[Move], timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        super().__init__(
            moves,
            timeout_s,
            send=self._send_one,
            ack=self._ack_all,
            failed=connection.end,
            address=connection.address,
        )

    def _send_one(self, outgoing: Outgoing, on_sent: OnSent) -> None:
        self._connection.ask(Operation.SEND, partial(send, self._connection, outgoing), on_sent, self._timeout_s)

    def _ack_all(self, messages: Sequence[Message]) -> None:
        connection = self._connection
        settle = partial(connection.server.settle, connection.session)
        answers = [
            connection.begin(Operation.ACK, partial(settle, [message.token]), self._timeout_s) for message in messages
        ]
        for answer in answers:
            connection.wait(answer, self._timeout_s)


@contextmanager
def _ending(connection: Connection) -> Iterator[None]:
    """End the connection after a move that failed: only to a new one are its messages delivered again."""
    try:
        yield
    except MoveRefusedError as refusal:
        connection.end(f"the broker refused a move: {refusal.reason}")
        raise
    except ConnectionLostError:
        connection.end("a move was not confirmed in time")
        raise


def _refused(connection: Connection, places: str, refusal: RefusedError) -> MoveRefusedError:
    return MoveRefusedError(
        f"{connection.address} refused to move messages to {places}: {refusal.reason}", reason=refusal.reason
    )


class MemoryBulkSender:
    """See `infertool.brokers.port.BulkSender`."""

    def __init__(
        self, template: Outgoing, variable_headers: Sequence[str], connected: Callable[[], Connection], timeout_s: float
    ) -> None:
        self._template = template
        self._names = variable_headers
        self._connected = connected
        self._timeout_s = timeout_s
        self.refused = 0
        self.reason = ""

    def wait_for_room(self, timeout_s: float) -> bool:
        """See `infertool.brokers.port.BulkSender`."""
        connection = self._connected()
        has_room = connection.wait_for_room(timeout_s)
        self._connected()
        return has_room

    def send(self, messages: Sequence[tuple[Sequence[str], bytes]]) -> None:
        """See `infertool.brokers.port.BulkSender`."""
        connection = self._connected()
        for values, body in messages:
            run = partial(send, connection, self._outgoing(values, body))
            connection.ask(Operation.SEND, run, self._answered, self._timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """See `infertool.brokers.port.BulkSender`."""
        connection = self._connected()
        try:
            connection.call(Operation.FLUSH, lambda: None, timeout_s)
        except ConnectionLostError:
            self._connected()
            return False
        return True

    def _outgoing(self, values: Sequence[str], body: bytes) -> Outgoing:
        texts = dict(zip(self._names, values, strict=True))
        own, properties = headers.split({**headers.property_texts(self._template.properties), **texts})
        types = {name: tag for name, tag in self._template.types.items() if name not in own}
        everything = {**self._template.headers, **own}
        return replace(self._template, headers=everything, properties=properties, body=body, types=types)

    def _answered(self, error: Exception | None) -> None:
        if isinstance(error, RefusedError):
            self.refused += 1
            self.reason = error.reason
