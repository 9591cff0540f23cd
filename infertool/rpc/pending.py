"""Calls that wait for a reply: by id, with one thread for all deadlines, and a memory of those that have ended."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import islice
from typing import Final

from infertool.rpc.reply import Call

# Calls that have ended whose ids are remembered, to tell what a reply to them is.
_REMEMBERED: Final = 20_000
# Entries of calls that ended before their deadlines; with more of them than calls the heap is made anew.
_LEAST_STALE: Final = 1000


class End(StrEnum):
    """How a call ended. Each is a field of `Counts`."""

    ANSWERED = "answered"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls by how they ended, and replies that belong to no call that waits.

    `failed`: the server answered a failure. `refused`: the broker took no request. `lost`: the connection ended first.
    `late` replies came to calls that had ended without one, `duplicates` to calls that were answered; `unknown` ones
    have a correlation id that is none of this client's newest 20 000.
    """

    answered: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    refused: int = 0
    lost: int = 0
    late: int = 0
    duplicates: int = 0
    unknown: int = 0


class Pending:
    """Thread-safe. Whoever takes a call out ends it, so that each ends once. `on_deadline` gets those past theirs."""

    def __init__(self, name: str, on_deadline: Callable[[Call], None]) -> None:
        self._on_deadline = on_deadline
        # Taken for each call: the lock alone costs a quarter of its condition.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open: dict[str, Call] = {}
        self._ended: dict[str, End] = {}
        self._counts = dict.fromkeys((each.name for each in fields(Counts)), 0)
        self._deadlines: list[tuple[float, str]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    @property
    def counts(self) -> Counts:
        """What became of the calls so far."""
        with self._changed:
            return Counts(**self._counts)

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> None:
        """Start the thread of the deadlines."""
        self._thread.start()

    def add(self, calls: Sequence[Call]) -> bool:
        """Have calls wait. Return False once closed: then none does."""
        with self._lock:
            if self._closed:
                return False
            next_one = self._deadlines[0] if self._deadlines else None
            for call in calls:
                self._open[call.id] = call
                heapq.heappush(self._deadlines, (call.deadline, call.id))
            if len(self._deadlines) > 2 * len(self._open) + _LEAST_STALE:
                self._deadlines = [(each.deadline, each.id) for each in self._open.values()]
                heapq.heapify(self._deadlines)
            if self._deadlines[0] != next_one:
                self._changed.notify_all()
            return True

    def take(self, call_id: str, end: End) -> Call | None:
        """Take a call out, that ends in this way; None if it has ended before."""
        with self._changed:
            return self._take(call_id, end)

    def take_answered(self, call_ids: Sequence[str | None]) -> list[Call | None]:
        """Take the calls out that replies are for; None for a reply to none that waits, which is counted."""
        with self._lock:
            return [self._take_answered(call_id or "") for call_id in call_ids]

    def _take_answered(self, call_id: str) -> Call | None:
        call = self._take(call_id, End.ANSWERED)
        if call is None:
            self._count({End.ANSWERED: "duplicates", End.FAILED: "duplicates", None: "unknown"}.get(
                self._ended.get(call_id), "late"
            ))  # fmt: skip
        return call

    def note_failure(self, call_id: str) -> None:
        """Note that the answer to a call was a failure."""
        with self._changed:
            self._count("answered", -1)
            self._count("failed")
            self._ended[call_id] = End.FAILED

    def all(self) -> list[Call]:
        """Return the calls that wait, in the order in which they began."""
        with self._changed:
            return list(self._open.values())

    def close(self) -> None:
        """Take no more calls, and end the thread. Those that wait stay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _take(self, call_id: str, end: End) -> Call | None:
        call = self._open.pop(call_id, None)
        if call is not None:
            self._ended[call_id] = end
            self._count(end)
            if len(self._ended) > 2 * _REMEMBERED:
                for old in list(islice(self._ended, _REMEMBERED)):
                    del self._ended[old]
        return call

    def _count(self, name: str, by: int = 1) -> None:
        self._counts[name] += by

    def _watch(self) -> None:
        while True:
            late = self._next_late()
            if late is None:
                return
            for call in late:
                self._on_deadline(call)

    def _next_late(self) -> list[Call] | None:
        """Wait for deadlines; return the calls past theirs, which are taken out. None once closed."""
        with self._changed:
            while not self._closed:
                late: list[Call] = []
                while self._deadlines:
                    deadline, call_id = self._deadlines[0]
                    if call_id in self._open and deadline > time.monotonic():
                        break
                    heapq.heappop(self._deadlines)
                    if call := self._take(call_id, End.TIMED_OUT):
                        late.append(call)
                if late:
                    return late
                self._changed.wait(self._deadlines[0][0] - time.monotonic() if self._deadlines else None)
        return None
