"""Takes the messages of a queue, in their order, also over lost connections; and the states of a transfer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from infertool.brokers.partitioned import Joins, PassesOver
from infertool.brokers.port import Broker, Capabilities, Conventions, Move, Selector, Subscription, Transaction
from infertool.deadletters.letters import key
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError, UnreachableError
from infertool.message import Message
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection

# Called with messages whose move was counted as done, and was not.
OnUndone = Callable[[Sequence[Message]], None]


class State(StrEnum):
    """See the table of `Transfer`."""

    NEW = "new"
    BEGUN = "begun"
    COMMITTING = "committing"
    DONE = "done"
    IN_DOUBT = "in doubt"
    NOT_DONE = "not done"
    REFUSED = "refused"
    UNDONE = "undone"


class Transfer:
    """Moves messages in one broker transaction. The next one can be prepared while the broker commits this one.

    | state | the broker holds | next state |
    |---|---|---|
    | NEW | the messages, delivered to us and unsettled | `begin`: BEGUN |
    | BEGUN | the same, and a transaction of acks and sends that has no effect yet | `commit`: COMMITTING |
    | COMMITTING | either what BEGUN says or what DONE says | `wait`, when the receipt comes: DONE |
    | DONE | what was sent, in its queues; none of the messages | - |
    | IN_DOUBT | the messages, or what was sent; not both, and not neither | they come again: UNDONE |
    | NOT_DONE | the messages; they come again | - |
    | REFUSED | the messages; they come again | - |
    | UNDONE | the messages; they come again | - |

    Where moves are not atomic (`Capabilities.atomic_move`), each message is sent in its new form first and acked then.
    COMMITTING and IN_DOUBT then hold for each message by itself, and the broker may hold both forms of one, which share
    the header `dlq_id`. Where they are atomic, one message that comes again shows that all are undone.

    Three errors of the broker lead from NEW, BEGUN and COMMITTING to another state:

    | error | state | meaning |
    |---|---|---|
    | `StaleMessagesError` | NOT_DONE | the connection that delivered the messages was lost before |
    | `ConnectionLostError` | IN_DOUBT | the connection was lost meanwhile |
    | `MoveRefusedError` (see `refusal`) | REFUSED | the broker refuses what was sent, and may end the connection |

    `on_lost` is called in these three states: the messages come again, on another connection unless they were refused.
    `on_undone` is called with the messages that were counted as done and were not.
    """

    def __init__(
        self,
        moves: Sequence[Move],
        *,
        atomic: bool,
        on_lost: Callable[[Transfer], None],
        on_undone: OnUndone,
    ) -> None:
        self.state = State.NEW
        self.refusal: MoveRefusedError | None = None
        self._moves = moves
        self._atomic = atomic
        self._on_lost = on_lost
        self._on_undone = on_undone
        self._transaction: Transaction
        self._doubtful: list[tuple[str, Message]] = []

    @property
    def first(self) -> Message:
        """The first of the messages, which share their partition and its epoch."""
        return self._moves[0].message

    @property
    def is_open(self) -> bool:
        """True while the broker's answer is still to come."""
        return self.state in {State.NEW, State.BEGUN, State.COMMITTING}

    def begin(self, start: Callable[[Sequence[Move]], Transaction]) -> None:
        """Begin the transaction with `start`."""

        def action() -> None:
            self._transaction = start(self._moves)

        if self.state is State.NEW:
            self._advance(action, State.BEGUN)

    def commit(self) -> None:
        """Have it committed. Returns before that is done."""
        if self.state is State.BEGUN:
            self._advance(self._transaction.commit, State.COMMITTING)

    def wait(self) -> None:
        """Wait for the receipt of the commit."""
        if self.state is State.COMMITTING:
            self._advance(self._transaction.wait, State.DONE)

    def undo_if_in(self, came_again: Message) -> bool:
        """Take a message of this transfer that came again for undone. Return True if nothing of it is in doubt now."""
        letter = key(came_again)
        at = next((at for at, (doubtful, _) in enumerate(self._doubtful) if doubtful == letter), None)
        if at is None:
            return False
        which = slice(None) if self._atomic else slice(at, at + 1)
        undone = self._doubtful[which]
        del self._doubtful[which]
        self._on_undone([message for _, message in undone])
        if not self._doubtful:
            self.state = State.UNDONE
        return not self._doubtful

    def _advance(self, action: Callable[[], None], following: State) -> None:
        """Do `action`, and go to the following state or to that of its error."""
        try:
            action()
        except StaleMessagesError:
            self.state = State.NOT_DONE
        except ConnectionLostError:
            self.state = State.IN_DOUBT
            self._doubtful = [(key(move.message), move.message) for move in self._moves]
        except MoveRefusedError as refusal:
            self.state = State.REFUSED
            self.refusal = refusal
        else:
            self.state = following
            return
        self._on_lost(self)


# A queue that gave nothing for this time, while connected, is empty. Seconds.
QUIET_S = 1.0
# The same for a queue that should have more: the broker may restart, or hold messages for a dead client. Seconds.
PATIENCE_S = 5.0
# A run ends after this time without a connection. Seconds.
LONGEST_LOSS_S = 300.0
# A run ends after this time without a partition: its group waits for a consumer that was killed. Seconds.
LONGEST_JOIN_S = 120.0
# A letter may have 100 MiB, and a line may be slow: this many bytes lengthen the wait for a commit by a second.
_SLOWEST_BYTES_S = 1_000_000
_POLL_S = 0.1
_GOODBYE_S = 10.0


@dataclass(frozen=True, slots=True)
class Bus:
    """How to reach the broker. `timeout_s` is the longest wait for a commit, without a second for each MB that is sent.

    `on_connection` is called with each change of a connection.
    """

    open_broker: Callable[[OnConnection], Broker]
    timeout_s: float
    on_connection: OnConnection


class Taker:
    """Takes messages from `queue` over a connection of its own. When that closes, what was not moved is in its queue.

    `on_arrival` is called with every message as it comes, up to a window before `take` returns it.
    A partition that goes to another connection takes its messages with it, and those of the others stay.
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
        self._broker = bus.open_broker(self._on_connection)
        self._queue = queue
        self._selector = selector
        self._stop = stop
        self._on_arrival = on_arrival
        self._buffer: deque[Message] = deque()
        # The newest epoch of each partition.
        self._epochs: dict[str, int] = {}
        self._lost_at: float | None = None
        # Since when it has no partition.
        self._without_at: float | None = None
        self._in_doubt: list[Transfer] = []
        self.held: set[str] = set()
        # Keys of letters that stay in their places in a log.
        self._left: set[str] = set()

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
        """Connect, trying for five minutes: a run goes on after a broker's restart."""
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
        """Return 1 to `most` messages of one partition; none at the queue's end, or when stopped.

        Raises `ConnectionLostError` when there was no connection for five minutes, `UnreachableError` when there was no
        partition for two.
        """
        quiet_since = time.monotonic()
        while not self._stop.is_set():
            lost_at = self._lost_at
            self._fill(0 if self._buffer and lost_at is None else _POLL_S)
            if lost_at is not None:  # what is here could not be moved
                self._check_loss(lost_at)
                quiet_since = time.monotonic()
            elif self._buffer:
                return self._taken(most)
            elif self._is_without():
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= patience_s:
                break
        return []

    def _taken(self, most: int) -> list[Message]:
        taken = [self._buffer.popleft()]
        while self._buffer and len(taken) < most and self._buffer[0].partition == taken[0].partition:
            taken.append(self._buffer.popleft())
        return taken

    def give_back(self, messages: Sequence[Message]) -> None:
        """Have `take` return these first."""
        self._buffer.extendleft(message for message in reversed(messages) if self._is_current(message))

    def hold(self, message: Message) -> None:
        """Keep `message` out of the way, unsettled: it stays in its queue."""
        self.held.add(key(message))

    def leave(self, messages: Sequence[Message]) -> None:
        """Let messages of a log stay in their places, unsettled, without taking up the window."""
        self._left.update(map(key, messages))
        self._pass_over(messages)

    def _pass_over(self, messages: Sequence[Message]) -> None:
        if messages and isinstance(self._subscription, PassesOver):
            self._subscription.pass_over(messages)

    def move(self, moves: Sequence[Move], on_undone: OnUndone) -> State:
        """Move in one transaction; return whether it is DONE, IN_DOUBT or NOT_DONE. See `Transfer`.

        Raises `MoveRefusedError`: nothing was done, and the messages come again.
        """
        transfer = self.begin(moves, on_undone)
        transfer.commit()
        transfer.wait()
        if transfer.refusal:
            raise transfer.refusal
        return transfer.state

    def begin(self, moves: Sequence[Move], on_undone: OnUndone) -> Transfer:
        """Begin to move in one transaction. `on_undone` is called with what was in doubt and is not done."""
        atomic = self.capabilities.atomic_move
        transfer = Transfer(moves, atomic=atomic, on_lost=self._lost, on_undone=on_undone)
        transfer.begin(self._start)
        return transfer

    def _start(self, moves: Sequence[Move]) -> Transaction:
        size = sum(len(outgoing.body) for move in moves for outgoing in move.sends)
        return self._subscription.start_move(moves, self._bus.timeout_s + size / _SLOWEST_BYTES_S)

    def _lost(self, transfer: Transfer) -> None:
        if transfer.state is State.IN_DOUBT:
            self._in_doubt.append(transfer)
        # Not every adapter ends the connection over a refusal; where it does, what follows has another epoch.
        # A partition that goes away does so without the connection: only stale messages show it.
        over = {State.NOT_DONE} if transfer.first.partition else {State.NOT_DONE, State.IN_DOUBT}
        if self._is_current(transfer.first) and transfer.state in over:
            self._forget(transfer.first.partition)  # it comes again

    def _is_current(self, message: Message) -> bool:
        return message.epoch == self._epochs.get(message.partition)

    def _forget(self, partition: str) -> None:
        """Take what waits of a partition out of the buffer: it was delivered in an epoch that is over."""
        self._buffer = deque(message for message in self._buffer if message.partition != partition)

    def _fill(self, timeout_s: float) -> None:
        left: list[Message] = []
        for message in self._subscription.receive(self.capabilities.max_unacked, timeout_s):
            if not self._is_current(message):
                self._forget(message.partition)
                self._epochs[message.partition] = message.epoch
            if self._in_doubt:
                self._in_doubt = [transfer for transfer in self._in_doubt if not transfer.undo_if_in(message)]
            self._on_arrival(message)
            letter = key(message) if self.held or self._left else ""
            if letter in self._left:
                left.append(message)
            elif letter not in self.held:
                self._buffer.append(message)
        self._pass_over(left)

    def _on_connection(self, event: ConnectionEvent) -> None:
        if event.state is ConnectionState.LOST:
            self._lost_at = self._lost_at or time.monotonic()
        elif event.state is ConnectionState.CONNECTED:
            self._lost_at = None
        self._bus.on_connection(event)

    def _is_without(self) -> bool:
        """Return True if a group gave it no partition, so that nothing comes whatever the queue holds."""
        if not isinstance(self._subscription, Joins) or self._subscription.partitions:
            self._without_at = None
            return False
        now = time.monotonic()
        self._without_at = self._without_at or now
        if now - self._without_at > LONGEST_JOIN_S:
            address = self._broker.address
            raise UnreachableError(
                f"{address} gave this run nothing of {self._queue} for {LONGEST_JOIN_S:.0f} s: another run has it",
                address=address,
                advice="nothing is lost; run the command again when the other one has ended",
            )
        return True

    def _check_loss(self, since: float) -> None:
        lost_s = time.monotonic() - since
        if lost_s > LONGEST_LOSS_S:
            address = self._broker.address
            raise ConnectionLostError(
                f"no connection to {address} for {lost_s:.0f} s",
                address=address,
                advice="nothing is lost; run the command again when the broker is back",
            )
