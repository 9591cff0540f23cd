"""Moving messages on a broker that has no transactions for it: confirmed send, then ack."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from infertool.brokers.port import Move, OnSent, Transaction
from infertool.errors import ConnectionLostError, MoveRefusedError, RefusedError
from infertool.message import Message, Outgoing
from infertool.net.timing import seconds_for

_Answers = queue.SimpleQueue[Exception | None]
# Waits until the broker has taken acks.
Wait = Callable[[], None]


def _nothing() -> None:
    """Do nothing."""


def _ignore(_reason: str) -> None:
    """Do nothing."""


def move_in_steps(
    moves: Sequence[Move], most: int, timeout_s: float, start: Callable[[Sequence[Move], float], Transaction]
) -> None:
    """Move all, at most `most` at a time and in order. `start` begins a step, for which it gets the seconds left.

    Raises as `infertool.brokers.port.Subscription.move`.
    """
    deadline = time.monotonic() + timeout_s
    for first in range(0, len(moves), most):
        transaction = start(moves[first : first + most], deadline - time.monotonic())
        transaction.commit()
        transaction.wait()


def extra_seconds(moves: Sequence[Move]) -> float:
    """Return how much longer moves may take than ones without bodies."""
    return seconds_for(sum(len(outgoing.body) for move in moves for outgoing in move.sends))


class ConfirmedMove:
    """Sends at once, and acks in `commit` after every send was confirmed. See `infertool.brokers.port.Transaction`.

    Nothing is lost; after a fault in between, what was sent is there and its message comes again.

    `send` is that of the broker; it may hold back what it is given until `flush`, which writes all of it in one piece.
    `ack` returns what waits until the broker has taken the acks, or waits itself and returns None; either raises
    `RefusedError`, `ConnectionLostError` or `StaleMessagesError`. `failed` is told why a move failed, and has its
    messages delivered again. `address` is for errors.
    """

    def __init__(
        self,
        moves: Sequence[Move],
        timeout_s: float,
        *,
        send: Callable[[Outgoing, OnSent], None],
        ack: Callable[[Sequence[Message]], Wait | None],
        address: str,
        flush: Callable[[], None] = _nothing,
        failed: Callable[[str], None] = _ignore,
    ) -> None:
        self._messages = [move.message for move in moves]
        self._deadline = time.monotonic() + timeout_s
        self._ack = ack
        self._failed = failed
        self._address = address
        self._answers: _Answers = queue.SimpleQueue()
        self._wait: Wait | None = None
        sends = [outgoing for move in moves for outgoing in move.sends]
        self._places = ", ".join(sorted({outgoing.destination for outgoing in sends}))
        self._open = len(sends)
        with self._telling():
            try:
                for outgoing in sends:
                    send(outgoing, partial(_put, self._answers))
                flush()
            except RefusedError as refusal:
                self._answers = queue.SimpleQueue()
                self._answers.put(refusal)

    def commit(self) -> None:
        """Wait until every send is confirmed, then ack.

        Raises ConnectionLostError, MoveRefusedError: nothing is acked then.
        """
        with self._telling():
            while self._open:
                self._take(self._next())
            self._wait = self._ack(self._messages)

    def wait(self) -> None:
        """Wait until the broker has taken the acks. Raises ConnectionLostError, MoveRefusedError."""
        if self._wait:
            with self._telling():
                self._wait()

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
            raise answer
        if answer is not None:
            raise ConnectionLostError(f"a move was not confirmed: {answer}", address=self._address) from answer

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell why a move failed; a refusal becomes that of the move."""
        try:
            yield
        except RefusedError as refusal:
            reason = refusal.reason
            self._failed(f"the broker refused a move: {reason}")
            what = f"{self._address} refused to move messages to {self._places}: {reason}"
            raise MoveRefusedError(what, reason=reason, advice=refusal.advice) from None
        except ConnectionLostError as loss:
            self._failed(loss.what)
            raise


def _put(answers: _Answers, error: Exception | None) -> None:
    answers.put(error)
