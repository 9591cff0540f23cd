"""Requests that wait for the broker's word: RECEIPT, ERROR, or the end of the connection."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from infertool.brokers import callbacks
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError
from infertool.net.timing import seconds_for

OnAnswer = Callable[[Exception | None], None]

# Sends that may be unconfirmed at a time: enough to fill the line to a far broker, few enough that a receipt which
# waits behind all of them (a disk sync each, 20 ms on a busy disk) still comes within the receipt timeout.
_MOST_REQUESTS: Final = 500
_MOST_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Request:
    deadline: float
    size: int
    on_answer: OnAnswer


class Receipts:
    """The open requests of one connection. Every request is answered exactly once, by an adapter's thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        # In each receipt id, and in nothing that anybody else writes.
        self.mark = secrets.token_hex(8)
        self._ids = itertools.count(1)
        self._open: dict[str, _Request] = {}
        self._bytes = 0
        self._changed = threading.Condition()
        self._lost: ConnectionLostError | None = None

    @property
    def pending(self) -> bool:
        """Whether a request has no answer yet."""
        return bool(self._open)

    def expect(self, on_answer: OnAnswer, timeout_s: float, size: int = 0) -> str:
        """Return a new receipt id, for a request of `size` bytes. Raises ConnectionLostError once it has ended."""
        with self._changed:
            if self._lost:
                raise self._lost
            receipt = f"r{next(self._ids)}-{self.mark}"
            self._open[receipt] = _Request(time.monotonic() + timeout_s + seconds_for(size), size, on_answer)
            self._bytes += size
            return receipt

    def wait_for_room(self, timeout_s: float | None = None) -> None:
        """Wait until another send may be open. The answers, the timeouts or the connection's end make room.

        Raises ReceiptTimeoutError when none may within `timeout_s`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.has_room, timeout_s):
                address = self._address
                raise ReceiptTimeoutError(f"{address} confirms nothing; a send waited in vain", address=address)

    @property
    def has_room(self) -> bool:
        """Whether another send may be open, or would fail at once."""
        return self._lost is not None or (len(self._open) < _MOST_REQUESTS and self._bytes < _MOST_BYTES)

    def confirm(self, receipt: str) -> None:
        """Answer that the broker did what `receipt` stands for."""
        self._answer(receipt, None)

    def refuse(self, receipt: str, reason: str) -> bool:
        """Answer that the broker said no; return whether anybody had asked."""
        error = RefusedError(f"{self._address} refused: {reason}", address=self._address, reason=reason)
        return self._answer(receipt, error)

    def refuse_only(self, reason: str) -> None:
        """Answer the one open request that the broker said no. Of several it is unknown which one is meant."""
        with self._changed:
            unanswered = list(self._open)
        if len(unanswered) == 1:
            self.refuse(unanswered[0], reason)

    def expire(self, now: float) -> None:
        """Answer requests whose time is over."""
        with self._changed:
            late = [receipt for receipt, request in self._open.items() if request.deadline <= now]
        error = ReceiptTimeoutError(f"{self._address} sent no receipt in time", address=self._address)
        for receipt in late:
            self._answer(receipt, error)

    def lose(self, reason: str) -> None:
        """Answer everything: the connection ended."""
        error = ConnectionLostError(f"the connection to {self._address} was lost: {reason}", address=self._address)
        with self._changed:
            self._lost = error
            unanswered = list(self._open)
        for receipt in unanswered:
            self._answer(receipt, error)

    def _answer(self, receipt: str, error: Exception | None) -> bool:
        with self._changed:
            request = self._open.pop(receipt, None)
            if request is None:
                return False
            self._bytes -= request.size
            self._changed.notify()
        callbacks.tell(request.on_answer, error, callbacks.SEND)
        return True


class Answer:
    """Turns one answer, or several, into a wait. The first refusal counts."""

    def __init__(self, expected: int = 1) -> None:
        self._missing = expected
        self._complete = threading.Event()
        self._error: Exception | None = None

    def __call__(self, error: Exception | None) -> None:
        """Take an answer; one thread at a time does."""
        self._error = self._error or error
        self._missing -= 1
        if self._missing == 0 or error:
            self._complete.set()

    def wait(self, timeout_s: float) -> bool:
        """Return whether the broker agreed in time; raise its refusal."""
        if not self._complete.wait(timeout_s):
            return False
        if self._error:
            raise self._error
        return True
