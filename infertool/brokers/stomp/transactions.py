"""Moving messages: SEND and ACK in one broker transaction, so that nothing is lost and nothing doubled."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
        some = moves[start : start + _PER_TRANSACTION]
        try:
            _Transaction(connection, deadline).run(some)
        except RefusedError as refusal:
            connection.end(f"the broker refused a move: {refusal.reason}")
            places = ", ".join(sorted({outgoing.destination for one in some for outgoing in one.sends}))
            what = f"{connection.target.address} refused to move messages to {places}: {refusal.reason}"
            raise MoveRefusedError(what, reason=refusal.reason) from None


class _Transaction:
    """One BEGIN ... COMMIT.

    ActiveMQ commits a transaction also when it refused an ACK in it, and the message would then be in both queues
    (measured, 5.17.2). So COMMIT is written only after the last frame before it has its receipt: the broker works on
    the frames of a connection in order, so an ERROR for any of them comes before that receipt.
    """

    def __init__(self, connection: Connection, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._errors = connection.errors

    def run(self, moves: Sequence[Move]) -> None:
        done, committed = Answer(), Answer()
        # Receipt ids are unique within a connection, so one names the transaction, too.
        receipt = self._receipt(committed)
        within = {"transaction": receipt}
        sends = [outgoing for one in moves for outgoing in one.sends]
        last = {**within, "receipt": self._receipt(done)}
        acks_last = within if sends else last
        frames = [encode("BEGIN", within)]
        frames += [encode("ACK", {"id": one.message.token, **within}) for one in moves[:-1]]
        frames += [encode("ACK", {"id": moves[-1].message.token, **acks_last})]
        frames += [to_send(outgoing, within) for outgoing in sends[:-1]]
        frames += [to_send(outgoing, last) for outgoing in sends[-1:]]
        self._write_and_wait(frames, done)
        if self._connection.errors != self._errors:
            raise RefusedError("", address=self._connection.target.address, reason=self._connection.last_error)
        self._write_and_wait([encode("COMMIT", {**within, "receipt": receipt})], committed)

    def _receipt(self, answer: Answer) -> str:
        return self._connection.receipts.expect(answer, max(self._deadline - time.monotonic(), 0.0))

    def _write_and_wait(self, frames: list[bytes], answer: Answer) -> None:
        self._connection.write(b"".join(frames))
        if not answer.wait(self._deadline - time.monotonic()):
            self._connection.end("no receipt for a move in time")
            raise ConnectionLostError(self._connection.reason, address=self._connection.target.address)
