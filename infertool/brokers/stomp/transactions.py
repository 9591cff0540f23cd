"""Moving messages: SEND and ACK in one broker transaction, so that nothing is lost and nothing doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from infertool.brokers.port import Move
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.delivery import to_send
from infertool.brokers.stomp.frames import encode
from infertool.brokers.stomp.receipts import Answer
from infertool.errors import ConnectionLostError, MoveRefusedError, RefusedError

# A transaction that holds more acks than ActiveMQ's window (200 by default) hangs for ever.
_PER_TRANSACTION: Final = 100


def move(connection: Connection, moves: Sequence[Move], timeout_s: float) -> None:
    """Move all, in transactions of at most 100. Raises ConnectionLostError, MoveRefusedError.

    After either the connection has ended, because the messages of a transaction that failed are not redelivered to
    the subscription that had them.
    """
    deadline = time.monotonic() + timeout_s
    for start in range(0, len(moves), _PER_TRANSACTION):
        try:
            _commit(connection, moves[start : start + _PER_TRANSACTION], deadline)
        except RefusedError as refusal:
            connection.end(f"the broker refused a move: {refusal.reason}")
            what = f"{connection.target.address} refused to move messages to {_places(moves[start:])}: {refusal.reason}"
            raise MoveRefusedError(what, reason=refusal.reason) from None


def _commit(connection: Connection, moves: Sequence[Move], deadline: float) -> None:
    answer = Answer()
    left = deadline - time.monotonic()
    # Receipt ids are unique within a connection, so they name its transactions, too.
    receipt = connection.receipts.expect(answer, max(left, 0.0))
    connection.write(b"".join(_frames(moves, receipt)))
    if not answer.wait(left):
        connection.end(f"no receipt for a move within {left:.1f} s")
        raise ConnectionLostError(connection.reason, address=connection.target.address)


def _frames(moves: Sequence[Move], transaction: str) -> Iterator[bytes]:
    within = {"transaction": transaction}
    yield encode("BEGIN", within)
    for one in moves:
        yield to_send(one.outgoing, within)
        yield encode("ACK", {"id": one.message.token, **within})
    yield encode("COMMIT", {**within, "receipt": transaction})


def _places(moves: Sequence[Move]) -> str:
    return ", ".join(sorted({one.outgoing.destination for one in moves[:_PER_TRANSACTION]}))
