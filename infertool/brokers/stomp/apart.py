"""Moves whose messages are sent over a connection of their own.

RabbitMQ and Artemis end the connection on which they refuse something, and count that as a delivery of all that the
connection held: what was delivered too often is dropped, or dead-lettered. So only the connection for sends ends, and
the messages stay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from infertool.brokers.port import Move
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.transactions import SendThenAck
from infertool.errors import ConnectionLostError, MoveRefusedError, ServerError
from infertool.message import Message
from infertool.net.timing import left_s


class MoveSender:
    """The connection for what the moves of a subscription send: made with the first move, and again after an end."""

    def __init__(self) -> None:
        # Held while one is made. `_closing` is set without it.
        self._making = threading.Lock()
        self._consuming: Connection | None = None
        self._connection: Connection | None = None
        self._closing = threading.Event()

    def beside(self, consuming: Connection, timeout_s: float) -> Connection:
        """Return a connection to the broker of `consuming`, made within `timeout_s`. Raises ServerError."""
        with self._making:
            connection = self._connection
            if connection and consuming is self._consuming and not connection.reason:
                return connection
            if connection:  # of another host, it may be
                connection.end("that of deliveries is another one")
                connection.join()
            self._consuming, self._connection = consuming, consuming.another(timeout_s)
            if self._closing.is_set():
                self._connection.end("closed")
            self._connection.open()
            return self._connection

    def end(self, reason: str) -> None:
        """End it, from any thread."""
        if connection := self._connection:
            connection.end(reason)

    def close(self) -> None:
        """End it for good."""
        self._closing.set()
        self.end("closed")
        with self._making:
            if self._connection:
                self._connection.join()


class MoveApart:
    """Sends and acks when it is committed. See `infertool.brokers.port.Transaction`.

    `give_back` has the messages delivered again, by the connection that has them.
    """

    def __init__(
        self,
        consuming: Connection,
        moves: Sequence[Move],
        deadline: float,
        *,
        sender: MoveSender,
        give_back: Callable[[Sequence[Message]], None],
    ) -> None:
        self._consuming = consuming
        self._moves = moves
        self._deadline = deadline
        self._sender = sender
        self._give_back = give_back
        self._move: SendThenAck

    def commit(self) -> None:
        """Send, wait until every send is confirmed, and ack. Raises ConnectionLostError, MoveRefusedError."""
        fault = self._try()
        if fault and left_s(self._deadline):
            # A connection may end by itself. RabbitMQ also ends it for a full queue, without a word.
            fault = self._try()
        if fault:
            self._refuse(fault)

    def _try(self) -> ServerError | None:
        """Return what ended the connection for sends while that of deliveries lives."""
        consuming = self._consuming
        address = consuming.target.address
        if consuming.reason:
            raise ConnectionLostError(f"the connection to {address} was lost: {consuming.reason}", address=address)
        try:
            sending = self._sender.beside(consuming, left_s(self._deadline))
            self._move = SendThenAck(consuming, self._moves, self._deadline, sending=sending)
            self._move.commit()
        except MoveRefusedError:
            self._keep()
            raise
        except ServerError as fault:
            if consuming.answers():
                return fault
            consuming.end("it does not answer")
            raise ConnectionLostError(f"a move was not confirmed in time: {fault.what}", address=address) from None
        return None

    def _refuse(self, fault: ServerError) -> None:
        self._keep()
        reason = f"the connection for sends ended, and that of deliveries did not: {fault.what}"
        places = ", ".join(sorted({outgoing.destination for move in self._moves for outgoing in move.sends}))
        what = f"{self._consuming.target.address} took no messages to {places}: {reason}"
        advice = "the queue may be full, or the broker short of memory or disk: see its log"
        raise MoveRefusedError(what, reason=reason, advice=advice)

    def _keep(self) -> None:
        self._give_back([move.message for move in self._moves])

    def wait(self) -> None:
        """Wait until the broker has taken the acks. Raises ConnectionLostError, MoveRefusedError."""
        self._move.wait()
