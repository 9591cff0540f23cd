"""The staging queue next to a dead-letter queue: what a scan leaves out waits there, and is put back in its order."""

from __future__ import annotations

import threading
from collections.abc import Callable

from infertool.brokers.port import Move
from infertool.deadletter import names
from infertool.deadletter.outgoing import unstaged
from infertool.deadletter.take import PATIENCE_S, QUIET_S, Bus, Moved, Taker

_BATCH = 100
_STRAGGLERS_S = 0.2


def restore(
    bus: Bus, queue: str, *, staged: int | None, on_restored: Callable[[int], None] = lambda _count: None
) -> int:
    """Put everything staged back to the end of `queue`; return how many those were.

    `staged` is how many there are where that is known. `on_restored` is called with the number so far. Killed at any
    instant, each message is in one of the two queues. Raises `ServerError`, `MoveRefusedError`.
    """
    restored = 0

    def undo(count: int) -> None:
        nonlocal restored
        restored -= count

    with Taker(bus, names.staging(queue), stop=threading.Event()) as taker:
        while messages := taker.take(_BATCH, _patience(staged, restored)):
            count = len(messages)
            moves = [Move(message, unstaged(message, queue)) for message in messages]
            if taker.move(moves, lambda count=count: undo(count)) is not Moved.NOT_DONE:  # type: ignore[misc]  # a default binds it
                restored += count
                on_restored(restored)
    return restored


def _patience(staged: int | None, restored: int) -> float:
    if staged is None:
        return QUIET_S
    return PATIENCE_S if restored < staged else _STRAGGLERS_S
