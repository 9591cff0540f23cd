"""Faults on demand at one address of the in-process broker: cuts, refusals, lost confirmations, stalls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Operation(StrEnum):
    """What a client asks of the broker. A move is `BEGIN` (acks and sends) and `COMMIT`, or `SEND` and `ACK`.

    `REPLY` is the delivery of replies to a connection's own queue.
    """

    CONNECT = "connect"
    SUBSCRIBE = "subscribe"
    SEND = "send"
    ACK = "ack"
    BEGIN = "begin"
    COMMIT = "commit"
    BROWSE = "browse"
    MEASURE = "measure"
    FLUSH = "flush"
    REPLY = "reply"


class Effect(StrEnum):
    """What goes wrong. A connection attempt that is cut finds nothing at the address."""

    CUT_BEFORE = "the connection ends before the broker acts"
    CUT_AFTER = "the broker acts, and the connection ends before the confirmation"
    REFUSE = "the broker refuses"
    SILENCE = "the broker acts, and never confirms"


@dataclass(slots=True)
class Fault:
    """One fault: it applies to the operation `skip` times later, then `times` times; None means until `clear`."""

    operation: Operation
    effect: Effect
    reason: str
    times: int | None = 1
    skip: int = 0

    def applies(self) -> bool:
        """Count one operation. Return True if it goes wrong."""
        if self.skip:
            self.skip -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Faults:
    """The faults of one address. Thread-safe; every method may be called at any time."""

    def __init__(self, cut: Callable[[str], None], wake: Callable[[], None]) -> None:
        self._cut = cut
        self._wake = wake
        self._lock = threading.Lock()
        self._planned: list[Fault] = []
        self._refused_queues: dict[str, str] = {}
        # Set when an operation waits because of a stall.
        self.holding = threading.Event()
        self.stalled = False

    def plan(
        self,
        operation: Operation,
        effect: Effect,
        *,
        times: int | None = 1,
        skip: int = 0,
        reason: str = "a fault on demand",
    ) -> None:
        """Have the next `operation` go wrong, or the one `skip` operations later, and `times - 1` after it."""
        with self._lock:
            self._planned.append(Fault(operation, effect, reason, times, skip))

    def refuse_queue(self, queue: str, reason: str = "this queue takes nothing") -> None:
        """Refuse every message to `queue`."""
        with self._lock:
            self._refused_queues[queue] = reason

    def clear(self) -> None:
        """Forget the faults that are planned, and go on after a stall."""
        with self._lock:
            self._planned.clear()
            self._refused_queues.clear()
        self.resume()

    def cut(self, reason: str = "cut on demand") -> None:
        """End every connection that was made to the address."""
        self._cut(reason)

    def stall(self) -> None:
        """Have the broker do nothing that is asked at the address. The connections live on."""
        self.holding.clear()
        self.stalled = True

    def resume(self) -> None:
        """End a stall: the broker does everything that was asked meanwhile, where the connection still lives."""
        self.stalled = False
        self._wake()

    def next(self, operation: Operation) -> Fault | None:
        """Return what goes wrong with the `operation` that happens now."""
        with self._lock:
            for fault in self._planned:
                if fault.operation is operation and fault.applies():
                    return fault
            return None

    def refusal(self, queue: str) -> str:
        """Return why a message to `queue` is refused; empty when it is not."""
        return self._refused_queues.get(queue, "")
