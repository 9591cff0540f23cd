"""Where outcomes go: Phoenix, standard output, or nowhere. All three take pushes and answer with proofs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO, Protocol

from infertool.phoenix.delivery import ConfirmedBy, Push, PushResult
from infertool.phoenix.push import NOTHING_PENDING, Pending

OnResults = Callable[[Sequence[PushResult]], None]


class Publisher(Protocol):
    """The last station of an event before it is settled."""

    def start(self) -> None:
        """Make ready. Raises `UnreachableError`, `RefusedError` or `JoinRefusedError`."""

    def push(self, pushes: Sequence[Push], *, crashes: int = 0) -> None:
        """Send; blocks while too many are unconfirmed. Raises `DeliveryClosedError` once `stop` was called.

        `crashes` is that of the result after which they are pushed again.
        """

    def pending(self) -> Pending:
        """Return how many pushes have no result yet, and the age of the oldest."""

    def stop(self) -> None:
        """Take no more pushes, and wake who waits to push."""

    def drain(self, timeout_s: float) -> bool:
        """Wait until all pushes are confirmed; False if `timeout_s` ran out."""

    def close(self, timeout_s: float) -> None:
        """Disconnect."""


class LocalPublisher:
    """Confirms each push as soon as `write` has taken it."""

    def __init__(self, write: Callable[[Sequence[Push]], None], on_results: OnResults) -> None:
        self._write = write
        self._on_results = on_results

    def start(self) -> None:
        """Do nothing."""

    def push(self, pushes: Sequence[Push], *, crashes: int = 0) -> None:  # noqa: ARG002  (the port)
        """Write, then confirm. A reader that has gone raises `BrokenPipeError`: what it did not read stays open."""
        self._write(pushes)
        confirmed_by = ConfirmedBy.NONE
        self._on_results([PushResult(push, confirmed_by) for push in pushes])

    def pending(self) -> Pending:
        """Return nothing: a push has its result when it returns."""
        return NOTHING_PENDING

    def stop(self) -> None:
        """Do nothing: a push never waits."""

    def drain(self, timeout_s: float) -> bool:  # noqa: ARG002  (the port)
        """Return True: nothing is ever outstanding."""
        return True

    def close(self, timeout_s: float) -> None:
        """Do nothing."""


class Lines:
    """Writes each document as a line of JSON to `stream`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, pushes: Sequence[Push]) -> None:
        """Write and flush."""
        with self._lock:
            self._stream.write(b"".join(push.payload + b"\n" for push in pushes))
            self._stream.flush()


def nowhere(pushes: Sequence[Push]) -> None:
    """Drop each document."""
