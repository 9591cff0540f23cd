"""Requests that wait for the broker's word: RECEIPT, ERROR, or the end of the connection."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from infertool.brokers import callbacks
from infertool.brokers.port import OnEnds
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError, UnroutableError
from infertool.net.timing import seconds_for

OnAnswer = Callable[[Exception | None], None]

# Sends that may be unconfirmed at a time: enough to fill the line to a far broker, few enough that a receipt which
# waits behind all of them (a disk sync each, 20 ms on a busy disk) still comes within the receipt timeout.
_MOST_REQUESTS: Final = 500
_MOST_BYTES: Final = 8 * 1024 * 1024


def answer_each(ends: Sequence[tuple[OnAnswer, Exception | None]]) -> None:
    """Call what waits for each request by itself: the `on_ends` of requests whose tokens are such callbacks."""
    for on_answer, error in ends:
        callbacks.tell(on_answer, error, callbacks.SEND)


class _Request(Struct, frozen=True):
    """`reply_address` is where a reply goes: a broker refuses it only when that is gone, or not ours to use."""

    deadline: float
    size: int
    on_ends: OnEnds
    token: Any
    reply_address: str

    def error(self, error: Exception | None) -> Exception | None:
        """Return what the one who asked gets to know."""
        if self.reply_address and isinstance(error, RefusedError):
            return unroutable(self.reply_address, error.address, error.reason)
        return error


class Receipts:
    """The open requests of one connection. Every request is answered exactly once, by an adapter's thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        # In each receipt id, and in nothing that anybody else writes.
        self.mark = secrets.token_hex(8)
        self._ids = itertools.count(1)
        self._open: dict[str, _Request] = {}
        self._bytes = 0
        # Taken for each send: the lock alone costs a quarter of its condition.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._lost: ConnectionLostError | None = None

    @property
    def pending(self) -> bool:
        """Whether a request has no answer yet."""
        return bool(self._open)

    def new_id(self) -> str:
        """Return a new receipt id, for `expect`."""
        return f"r{next(self._ids)}-{self.mark}"

    def expect(
        self,
        token: Any,
        timeout_s: float,
        size: int = 0,
        *,
        on_ends: OnEnds = answer_each,
        receipt: str = "",
        reply_address: str = "",
    ) -> str:
        """Return the receipt id of a request of `size` bytes. Raises ConnectionLostError once it has ended.

        `on_ends` gets `token` with the answer, together with others whose answers come with it. Without one the token
        is a callback of its own.
        """
        receipt = receipt or self.new_id()
        request = _Request(time.monotonic() + timeout_s + seconds_for(size), size, on_ends, token, reply_address)
        with self._lock:
            if self._lost:
                raise self._lost
            self._open[receipt] = request
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

    def confirm(self, receipts: Iterable[str]) -> None:
        """Answer that the broker did what `receipts` stand for."""
        self._answer(receipts, None)

    def refuse(self, receipt: str, reason: str) -> bool:
        """Answer that the broker said no; return whether anybody had asked."""
        error = RefusedError(f"{self._address} refused: {reason}", address=self._address, reason=reason)
        return self._answer([receipt], error)

    def refuse_only(self, reason: str) -> None:
        """Answer the one open request that the broker said no. Of several it is unknown which one is meant."""
        with self._lock:
            unanswered = list(self._open)
        if len(unanswered) == 1:
            self.refuse(unanswered[0], reason)

    def expire(self, now: float) -> None:
        """Answer requests whose time is over."""
        with self._lock:
            late = [receipt for receipt, request in self._open.items() if request.deadline <= now]
        if late:
            error = ReceiptTimeoutError(f"{self._address} sent no receipt in time", address=self._address)
            self._answer(late, error)

    def lose(self, reason: str) -> None:
        """Answer everything: the connection ended."""
        error = ConnectionLostError(f"the connection to {self._address} was lost: {reason}", address=self._address)
        with self._lock:
            self._lost = error
            unanswered = list(self._open)
        self._answer(unanswered, error)

    def _answer(self, receipts: Iterable[str], error: Exception | None) -> bool:
        """Answer requests; return whether any of them was open."""
        ends: dict[OnEnds, list[tuple[Any, Exception | None]]] = {}
        with self._lock:
            for receipt in receipts:
                request = self._open.pop(receipt, None)
                if request is not None:
                    self._bytes -= request.size
                    ends.setdefault(request.on_ends, []).append(
                        (request.token, request.error(error) if error else None)
                    )
            self._changed.notify_all()
        for on_ends, ended in ends.items():
            callbacks.tell(on_ends, ended, callbacks.SEND)
        return bool(ends)


def unroutable(destination: str, address: str, reason: str) -> UnroutableError:
    """Return the error for a queue that is not there."""
    return UnroutableError(f"{address} has no queue {destination}: {reason}", address=address, reason=reason)


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
