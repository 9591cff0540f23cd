"""The queues beside a dead-letter queue: the lock, so that one run works at a time, and the staging queue.

Lock: a broker gives all messages of a queue to the first *exclusive* consumer, and to the next when that one ends,
however it ends. So each run subscribes to the queue's lock queue and sends itself a message: the run that gets its
own has the lock. RabbitMQ refuses the second subscription at once. Artemis has no such consumers, but counts all: a
run that is not alone there gives up. On a log (`Capabilities.log`) all runs are one group of consumers, and nothing is
staged: a run begins while the group has no member.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from infertool.brokers.port import Broker, Browsing, Move, Subscription
from infertool.deadletters.letters import key
from infertool.deadletters.replay.sending import unstaged
from infertool.deadletters.replay.take import PATIENCE_S, QUIET_S, Bus, State, Taker
from infertool.errors import InfertoolError, MoveRefusedError, OccupiedError, RefusedError
from infertool.message import Message, Outgoing, Properties


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
            state = self._taker.move(moves, lambda undone: self._undo(messages, undone))
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

    def _undo(self, messages: Sequence[Message], undone: Sequence[Message]) -> None:
        self._restored -= len(undone)
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


# Maximum wait for our own note: after it another run holds the note back, or the broker is slow. Seconds.
_WAIT_S = 3.0
_LONGEST_WAIT_S = 30.0
_POLL_S = 0.1
_LOOK_S = 5.0
# The header of a note: which run wrote it.
_NOTE: Final = "lock_token"
_NOTE_ID: Final = re.compile("[0-9a-f]{16}")


class BusyError(InfertoolError):
    """Another run works on the queue. `holder` says who, as far as the broker tells."""

    def __init__(self, queue: str, holder: str) -> None:
        super().__init__(
            f"another run works on {queue}: {holder}", advice="wait for it, or use --force if it is not so"
        )
        self.queue = queue
        self.holder = holder


class ForeignMessagesError(InfertoolError):
    """The lock queue `place` of `queue` holds messages that no run wrote. They stay there."""

    def __init__(self, queue: str, place: str) -> None:
        super().__init__(
            f"{place}, where the runs that work on {queue} meet, holds messages of another program",
            advice="have that program use another queue, or use --force if no other run works on the letters",
        )
        self.queue = queue
        self.place = place


@contextmanager
def locked(broker: Broker, queue: str, who: str) -> Iterator[float]:
    """Hold the lock of `queue` while the block runs. Raises `BusyError`, `ForeignMessagesError`, `ServerError`.

    Yields how many seconds the broker's clock is ahead of ours, 0 when that is less than the exchange took.
    """
    if broker.capabilities.log:
        _check_without_consumers(broker, queue)
        yield 0.0
        return
    place, token = lock(queue), secrets.token_hex(8)
    try:
        subscription = broker.subscribe(place, window=100, exclusive=broker.capabilities.exclusive)
    except OccupiedError:
        raise BusyError(queue, "unknown") from None
    if not broker.capabilities.exclusive:
        _check_alone(broker, queue, place)
    note = Outgoing(place, who.encode(), headers={_NOTE: token}, properties=Properties(persistent=False))
    sent_at = time.time()
    broker.send(note, lambda _answer: None)
    mine = _await_note(subscription, token, _WAIT_S)
    if mine is None and _is_alone(broker, place):
        mine = _await_note(subscription, token, _LONGEST_WAIT_S)
    if mine and _token(mine) is None:
        raise ForeignMessagesError(queue, place)
    if mine is None:
        raise BusyError(queue, _holder(broker, place, token))
    try:
        yield _ahead(mine, sent_at, time.time())
    finally:
        subscription.ack([mine])


def _check_without_consumers(broker: Broker, queue: str) -> None:
    """Raise `BusyError` if the group of the runs on a log has a member: another run, or one that was just killed."""
    depth = broker.measure(queue, _LOOK_S)
    if depth and depth.consumers:
        raise BusyError(queue, f"its group has {depth.consumers} consumers")


def _check_alone(broker: Broker, queue: str, place: str) -> None:
    """Raise `BusyError` if others subscribe to the lock queue, too. Two that begin at once may both be told so."""
    depth = broker.measure(place, _LOOK_S)
    if depth is None or depth.consumers is None:
        raise BusyError(queue, "the broker does not tell")
    if depth.consumers > 1:
        raise BusyError(queue, "unknown")


def _ahead(note: Message, sent_at: float, received_at: float) -> float:
    """Return how far the broker's clock is ahead: it stamps what a client sends."""
    stamp = note.properties.timestamp_ms
    if stamp is None:
        return 0.0
    at = stamp / 1000
    return max(at - received_at, 0.0) + min(at - sent_at, 0.0)


def _is_alone(broker: Broker, place: str) -> bool:
    """Return True if the broker tells of no other consumer."""
    depth = broker.measure(place, _LOOK_S)
    return depth is not None and depth.consumers == 1


def _await_note(subscription: Subscription, token: str, patience_s: float) -> Message | None:
    """Wait for our own note, or a message that is none. Other notes are from runs that ended without a goodbye."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        for message in subscription.receive(1, _POLL_S):
            if _token(message) in {token, None}:
                return message
            subscription.ack([message])
    return None


def _token(message: Message) -> str | None:
    """Return whose note it is; None if no run wrote it."""
    token = message.native.get(_NOTE, "")
    return token if _NOTE_ID.fullmatch(token) else None


def _holder(broker: Broker, place: str, token: str) -> str:
    if broker.capabilities.browse is Browsing.NONE:
        return "unknown"
    try:
        shown = broker.browse(place, limit=10, timeout_s=_LOOK_S).messages
    except RefusedError:  # it is the other's own queue
        return "unknown"
    others = [message for message in shown if _token(message) not in {token, None}]
    return others[0].body.decode("utf-8", "replace") if others else "unknown"
