"""Taking the messages of a queue out, in their order, a batch a transaction, over lost connections."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeVar

from infertool.brokers.port import Broker, Capabilities, Conventions, Move, Selector, Subscription, Transaction
from infertool.deadletters.letter import key
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError, UnreachableError
from infertool.message import Message
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection

# A queue that gave nothing for so long, while connected, has nothing more to give.
QUIET_S = 1.0
# A queue that should have more may be slow: a broker that restarts, a dead client that it has not noticed yet.
PATIENCE_S = 5.0
LONGEST_LOSS_S = 300.0
# A letter may have 100 MiB, and a line may be slow.
_SLOWEST_BYTES_S = 1_000_000
_POLL_S = 0.1
_GOODBYE_S = 10.0


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Bus:
    """How to reach the broker. `timeout_s` is the longest wait for a commit, besides a second for each MB that is sent.

    `on_link` hears of lost connections.
    """

    open_broker: Callable[[OnConnection], Broker]
    timeout_s: float
    on_connection: OnConnection


class Moved(StrEnum):
    """What became of a transaction."""

    DONE = "done"
    # The connection was lost before the broker's word. If it was not done, its messages come again.
    IN_DOUBT = "in doubt"
    # The messages belong to a connection that was lost before: nothing was done, they come again.
    NOT_DONE = "not done"


class Step:
    """One transaction, so that the next can be prepared while the broker works on its commit.

    Both methods return what became of it once that is known, and raise `MoveRefusedError`.
    """

    def __init__(self, taker: Taker, moves: Sequence[Move], undo: Callable[[], None]) -> None:
        self._taker = taker
        self._moves = moves
        self._undo = undo
        self._ended: Moved | None = None
        self._transaction = self._guarded(lambda: taker.begin(moves))

    def commit(self) -> Moved | None:
        """Have it committed."""
        if self._transaction:
            self._guarded(self._transaction.commit)
        return self._ended

    def wait(self) -> Moved:
        """Wait until it is done."""
        if self._transaction and not self._ended:
            self._guarded(self._transaction.wait)
        return self._ended or Moved.DONE

    def _guarded(self, action: Callable[[], _T]) -> _T | None:
        epoch = self._moves[0].message.epoch
        try:
            return action()
        except StaleMessagesError:
            self._ended = Moved.NOT_DONE
        except ConnectionLostError:
            self._ended = Moved.IN_DOUBT
            self._taker.doubt(self._moves, self._undo)
        except MoveRefusedError:
            self._taker.forget(epoch)
            raise
        self._taker.forget(epoch)
        return None


class Taker:
    """A connection of its own that takes messages from `queue`. On leaving, what was not moved is back where it was.

    `on_arrival` sees every message as it comes, up to a window before `take` returns it.
    """

    def __init__(
        self,
        bus: Bus,
        queue: str,
        *,
        stop: threading.Event,
        selector: Selector | None = None,
        on_arrival: Callable[[Message], None] = lambda _message: None,
    ) -> None:
        self._bus = bus
        self._broker = bus.open_broker(self._linked)
        self._queue = queue
        self._selector = selector
        self._stop = stop
        self._on_arrival = on_arrival
        self._buffer: deque[Message] = deque()
        self._epoch = 0
        self._lost_at: float | None = None
        self._doubts: list[tuple[frozenset[str], Callable[[], None]]] = []
        self.held: set[str] = set()

    def __enter__(self) -> Self:
        try:
            self._connect()
            self._subscription: Subscription = self._broker.subscribe(
                self._queue, window=self.capabilities.max_unacked, selector=self._selector
            )
        except BaseException:
            self._broker.close(_GOODBYE_S)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.close(_GOODBYE_S)

    @property
    def capabilities(self) -> Capabilities:
        """What the broker can do."""
        return self._broker.capabilities

    @property
    def conventions(self) -> Conventions:
        """How the broker spells queues and carries headers."""
        return self._broker.conventions

    def _connect(self) -> None:
        """Connect, with the patience of one who was connected before: the run goes on after a broker's restart."""
        since = time.monotonic()
        while True:
            try:
                self._broker.connect()
            except UnreachableError:
                if self._stop.wait(QUIET_S) or time.monotonic() - since > LONGEST_LOSS_S:
                    raise
            else:
                return

    def take(self, most: int, patience_s: float = QUIET_S) -> list[Message]:
        """Return 1 to `most` messages; none at the queue's end, or when stopped.

        Raises `ConnectionLostError` when there was no connection for five minutes.
        """
        quiet_since = time.monotonic()
        while not self._stop.is_set():
            self._fill(0 if self._buffer else _POLL_S)
            if self._buffer:
                return [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
            if self._lost_at is not None:
                self._check_loss(self._lost_at)
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= patience_s:
                break
        return []

    def give_back(self, messages: Sequence[Message]) -> None:
        """Have `take` return these first."""
        self._buffer.extendleft(message for message in reversed(messages) if message.epoch == self._epoch)

    def hold(self, message: Message) -> None:
        """Keep `message` out of the way, unsettled: it stays in its queue."""
        self.held.add(key(message))

    def move(self, moves: Sequence[Move], undo: Callable[[], None]) -> Moved:
        """Move in one transaction. `undo` is called when it was in doubt and turns out not to have been done.

        Raises `MoveRefusedError`: nothing was done, and the messages come again.
        """
        step = self.start(moves, undo)
        return step.commit() or step.wait()

    def start(self, moves: Sequence[Move], undo: Callable[[], None]) -> Step:
        """Begin to move. See `move`."""
        return Step(self, moves, undo)

    def begin(self, moves: Sequence[Move]) -> Transaction:
        """Begin a transaction; for `Step`."""
        size = sum(len(outgoing.body) for move in moves for outgoing in move.sends)
        return self._subscription.start_move(moves, self._bus.timeout_s + size / _SLOWEST_BYTES_S)

    def doubt(self, moves: Sequence[Move], undo: Callable[[], None]) -> None:
        """Call `undo` when one of the messages comes again; for `Step`."""
        self._doubts.append((frozenset(key(move.message) for move in moves), undo))

    def forget(self, epoch: int) -> None:
        """Drop what a lost connection delivered; for `Step`."""
        if self._epoch == epoch:
            self._buffer.clear()

    def _fill(self, timeout_s: float) -> None:
        for message in self._subscription.receive(self.capabilities.max_unacked, timeout_s):
            if message.epoch != self._epoch:
                self._buffer.clear()
                self._epoch = message.epoch
            self._resolve(message)
            self._on_arrival(message)
            if not self.held or key(message) not in self.held:
                self._buffer.append(message)

    def _resolve(self, came_again: Message) -> None:
        if not self._doubts:
            return
        letter = key(came_again)
        for doubt in [doubt for doubt in self._doubts if letter in doubt[0]]:
            self._doubts.remove(doubt)
            doubt[1]()

    def _linked(self, event: ConnectionEvent) -> None:
        if event.state is ConnectionState.LOST:
            self._lost_at = self._lost_at or time.monotonic()
        elif event.state is ConnectionState.CONNECTED:
            self._lost_at = None
        self._bus.on_connection(event)

    def _check_loss(self, since: float) -> None:
        lost_s = time.monotonic() - since
        if lost_s > LONGEST_LOSS_S:
            address = self._broker.address
            raise ConnectionLostError(
                f"no connection to {address} for {lost_s:.0f} s",
                address=address,
                advice="nothing is lost; run the command again when the broker is back",
            )
