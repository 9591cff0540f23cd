"""The staging queue next to a dead-letter queue: what a scan leaves out waits there, and is put back in its order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from infertool.brokers.port import Move
from infertool.deadletters.letter import key
from infertool.deadletters.replay.sending import unstaged
from infertool.deadletters.replay.take import PATIENCE_S, QUIET_S, Bus, Taker
from infertool.deadletters.replay.transfer import State
from infertool.errors import MoveRefusedError
from infertool.message import Message, Outgoing


def staging(queue: str) -> str:
    """Return where a scan of `queue` keeps what it leaves out, until it puts that back."""
    return f"{queue}.scan"


def beside(queue: str) -> tuple[str, str]:
    """Return the queues that runs on `queue` need for themselves."""
    return staging(queue), lock(queue)


def lock(queue: str) -> str:
    """Return where the runs that work on `queue` meet."""
    return f"{queue}.lock"


# Longest wait for more than is known to be staged. Seconds.
_STRAGGLERS_S = 0.2
# A letter that was moved alone this number of times, and is still there, stays in staging.
_TRIES = 3
# After this number of such letters in a row, the fault is the queue's: the run ends.
_MOST_STUCK = 20


def restore(
    bus: Bus, queue: str, *, staged: int | None, on_restored: Callable[[int], None] = lambda _count: None
) -> int:
    """Put everything staged back to the end of `queue`; return how many those were.

    `staged` is how many there are where that is known. `on_restored` is called with the number so far. Killed at any
    instant, each message is in one of the two queues. A letter that cannot be moved stays in staging, and the others
    are put back. Raises `ServerError`, and `MoveRefusedError` when the queue takes none.
    """
    with Taker(bus, staging(queue), stop=threading.Event()) as taker:
        return _Restore(taker, queue, staged, on_restored).run()


class _Restore:
    def __init__(self, taker: Taker, queue: str, staged: int | None, on_restored: Callable[[int], None]) -> None:
        self._taker = taker
        self._queue = queue
        self._staged = staged
        self._on_restored = on_restored
        self._restored = 0
        self._most = taker.capabilities.max_moves
        self._size = self._most
        self._tries: Counter[str] = Counter()
        self._stuck = 0

    def run(self) -> int:
        while messages := self._taker.take(self._size, self._patience()):
            self._put_back(messages)
        return self._restored

    def _put_back(self, messages: Sequence[Message]) -> None:
        moves = [Move(message, self._unstaged(message)) for message in messages]
        try:
            state = self._taker.move(moves, lambda: self._undo(messages))
        except MoveRefusedError as refusal:
            self._failed(messages, refusal)
            return
        if state is State.NOT_DONE:
            return
        if state is State.DONE:
            self._size, self._stuck = min(self._most, 2 * self._size), 0
        self._restored += len(messages)
        self._on_restored(self._restored)

    def _unstaged(self, message: Message) -> Outgoing:
        taker = self._taker
        return unstaged(message, self._queue, taker.conventions, atomic=taker.capabilities.atomic_move)

    def _undo(self, messages: Sequence[Message]) -> None:
        self._restored -= len(messages)
        self._failed(messages, None)

    def _failed(self, messages: Sequence[Message], refusal: MoveRefusedError | None) -> None:
        """Halve the batch to find the one that cannot be moved, and leave that where it is."""
        if len(messages) > 1:
            self._size = max(1, len(messages) // 2)
            return
        letter = key(messages[0])
        self._tries[letter] += 1
        if self._tries[letter] < _TRIES and refusal is None:
            return
        self._stuck += 1
        if refusal and self._stuck >= _MOST_STUCK:
            raise refusal
        self._taker.hold(messages[0])

    def _patience(self) -> float:
        if self._staged is None:
            return QUIET_S
        return PATIENCE_S if self._restored + len(self._taker.held) < self._staged else _STRAGGLERS_S
