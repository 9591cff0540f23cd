"""Moving messages on a broker that has no transactions for it: confirmed send, then ack."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from functools import partial

from infertool.brokers.port import Move, OnSent
from infertool.errors import ConnectionLostError, MoveRefusedError, RefusedError
from infertool.message import Message, Outgoing

_Answers = queue.SimpleQueue[Exception | None]


class ConfirmedMove:
    """Sends at once, and acks in `commit` after every send was confirmed. See `infertool.brokers.port.Transaction`.

    Nothing is lost; after a fault in between, what was sent is there and its message comes again. `send` is that of the
    broker. `ack` returns once the broker has taken the acks; it raises `ConnectionLostError` or `StaleMessagesError`
    otherwise. `address` is for errors.
    """

    def __init__(
        self,
        moves: Sequence[Move],
        timeout_s: float,
        *,
        send: Callable[[Outgoing, OnSent], None],
        ack: Callable[[Sequence[Message]], None],
        address: str,
    ) -> None:
        self._messages = [move.message for move in moves]
        self._deadline = time.monotonic() + timeout_s
        self._ack = ack
        self._address = address
        self._answers: _Answers = queue.SimpleQueue()
        sends = [outgoing for move in moves for outgoing in move.sends]
        self._places = ", ".join(sorted({outgoing.destination for outgoing in sends}))
        self._open = 0
        self._refusal: RefusedError | None = None
        for outgoing in sends:
            try:
                send(outgoing, partial(_put, self._answers))
            except RefusedError as refusal:
                self._refusal = refusal
                break
            self._open += 1

    def commit(self) -> None:
        """Wait until every send is confirmed, then ack.

        Raises ConnectionLostError, MoveRefusedError: nothing is acked then.
        """
        while self._open:
            self._take(self._next())
        if self._refusal:
            reason = self._refusal.reason
            raise MoveRefusedError(
                f"{self._address} refused to move messages to {self._places}: {reason}", reason=reason
            )
        self._ack(self._messages)

    def wait(self) -> None:
        """Return at once: `commit` has waited."""

    def _next(self) -> Exception | None:
        try:
            return self._answers.get(timeout=max(0.0, self._deadline - time.monotonic()))
        except queue.Empty:
            raise ConnectionLostError(
                f"{self._address} did not confirm a move in time", address=self._address
            ) from None

    def _take(self, answer: Exception | None) -> None:
        self._open -= 1
        if isinstance(answer, RefusedError):
            self._refusal = self._refusal or answer
        elif answer is not None:
            raise ConnectionLostError(f"a move was not confirmed: {answer}", address=self._address) from answer


def _put(answers: _Answers, error: Exception | None) -> None:
    answers.put(error)
