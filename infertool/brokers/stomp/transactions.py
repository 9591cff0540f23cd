"""Moving messages: SEND and ACK in one broker transaction, or where there is none, ACK after the SEND was confirmed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from infertool.brokers import port
from infertool.brokers.moving import ConfirmedMove, Wait, extra_seconds
from infertool.brokers.port import Move, OnSent
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.frames import encode
from infertool.brokers.stomp.messages import check
from infertool.brokers.stomp.receipts import Answer
from infertool.errors import ConnectionLostError, MoveRefusedError, RefusedError
from infertool.message import Message, Outgoing


def deadline_of(moves: Sequence[Move], timeout_s: float) -> float:
    """Return until when moves may take, in monotonic seconds."""
    return time.monotonic() + timeout_s + extra_seconds(moves)


def begin(connection: Connection, moves: Sequence[Move], timeout_s: float) -> port.Transaction:
    """Begin to move, in the way that the broker can. Raises ConnectionLostError, MoveRefusedError.

    After either the connection has ended, because the messages of a transaction that failed are not redelivered to
    the subscription that had them.
    """
    deadline = deadline_of(moves, timeout_s)
    if connection.dialect.capabilities.atomic_move:
        return Transaction(connection, moves, deadline)
    return SendThenAck(connection, moves, deadline, sending=connection)


class SendThenAck(ConfirmedMove):
    """Sends with a receipt each, all in one piece, and acks when every one has come; the last ACK has a receipt, too.

    An ERROR that names no request, after which such a broker ends the connection, is taken for a refusal of the move.
    `sending` has the sends, and ends when the move fails.
    """

    def __init__(self, connection: Connection, moves: Sequence[Move], deadline: float, *, sending: Connection) -> None:
        self._connection = connection
        self._sending = sending
        self._until = deadline
        self._frames: list[bytes] = []
        super().__init__(
            moves,
            deadline - time.monotonic(),
            send=self._hold,
            flush=self._write,
            ack=self._start_acks,
            failed=sending.end,
            address=connection.target.address,
        )

    def _hold(self, outgoing: Outgoing, on_sent: OnSent) -> None:
        check(outgoing, self._sending.target.address)
        receipt = self._receipt(self._sending, on_sent)
        self._frames.append(self._sending.dialect.send(outgoing, {"receipt": receipt}))

    def _write(self) -> None:
        self._sending.write(b"".join(self._frames))
        self._frames.clear()

    def _start_acks(self, messages: Sequence[Message]) -> Wait:
        answer = Answer()
        receipt = self._receipt(self._connection, answer)
        acks = [{"id": message.token} for message in messages]
        acks[-1]["receipt"] = receipt
        self._connection.write(b"".join(encode("ACK", headers) for headers in acks))
        return partial(self._connection.wait_for, answer, self._until, "a move")

    def _receipt(self, connection: Connection, answer: OnSent) -> str:
        """Return a receipt id. `answer` is told that an end of the connection is a refusal if an ERROR came before."""
        errors = connection.errors

        def told(error: Exception | None) -> None:
            if isinstance(error, ConnectionLostError) and connection.errors != errors:
                error = RefusedError(str(error), address=error.address, reason=connection.last_error)
            answer(error)

        return connection.receipts.expect(told, max(self._until - time.monotonic(), 0.0))


class Transaction:
    """One BEGIN ... COMMIT, begun at once. See `infertool.brokers.port.Transaction`.

    ActiveMQ commits a transaction also when it refused an ACK in it, and the message would then be in both queues
    (measured, 5.17.2). So COMMIT is written only after the last frame before it has its receipt: the broker works on
    the frames of a connection in order, so an ERROR for any of them comes before that receipt.
    """

    def __init__(self, connection: Connection, moves: Sequence[Move], deadline: float) -> None:
        self._connection = connection
        self._errors = connection.errors
        self._deadline = deadline
        sends = [outgoing for move in moves for outgoing in move.sends]
        self._places = ", ".join(sorted({outgoing.destination for outgoing in sends}))
        try:
            for outgoing in sends:
                check(outgoing, connection.target.address)
        except RefusedError as refusal:
            raise self._refused(refusal.reason) from None
        self._taken, self._committed = Answer(), Answer()
        # Receipt ids are unique within a connection, so one names the transaction, too.
        self._name = self._receipt(self._committed)
        connection.write(b"".join(self._frames(moves, sends)))

    def _frames(self, moves: Sequence[Move], sends: Sequence[Outgoing]) -> list[bytes]:
        within = {"transaction": self._name}
        last = {**within, "receipt": self._receipt(self._taken)}
        send = self._connection.dialect.send
        frames = [encode("BEGIN", within)]
        frames += [encode("ACK", {"id": one.message.token, **within}) for one in moves[:-1]]
        frames += [encode("ACK", {"id": moves[-1].message.token, **(within if sends else last)})]
        frames += [send(outgoing, within) for outgoing in sends[:-1]]
        frames += [send(outgoing, last) for outgoing in sends[-1:]]
        return frames

    def commit(self) -> None:
        """Write COMMIT, once the broker took all before it. Raises ConnectionLostError, MoveRefusedError."""
        self._await(self._taken)
        if self._connection.errors != self._errors:
            raise self._refused(self._connection.last_error)
        self._connection.write(encode("COMMIT", {"transaction": self._name, "receipt": self._name}))

    def wait(self) -> None:
        """Wait for the receipt of the commit. Raises ConnectionLostError, MoveRefusedError."""
        self._await(self._committed)

    def _receipt(self, answer: Answer) -> str:
        return self._connection.receipts.expect(answer, max(self._deadline - time.monotonic(), 0.0))

    def _await(self, answer: Answer) -> None:
        try:
            self._connection.wait_for(answer, self._deadline, "a move")
        except RefusedError as refusal:
            raise self._refused(refusal.reason) from None

    def _refused(self, reason: str) -> MoveRefusedError:
        self._connection.end(f"the broker refused a move: {reason}")
        address = self._connection.target.address
        return MoveRefusedError(f"{address} refused to move messages to {self._places}: {reason}", reason=reason)
