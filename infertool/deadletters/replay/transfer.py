"""One transaction that takes messages off a queue, from its begin until it is known what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from infertool.brokers.port import Move, Transaction
from infertool.deadletters.letter import key
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError
from infertool.message import Message


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
    | IN_DOUBT | the messages, or what was sent; not both, and not neither | a message comes again: UNDONE |
    | NOT_DONE | the messages; they come again | - |
    | REFUSED | the messages; they come again | - |
    | UNDONE | the messages; they come again | - |

    Where moves are not atomic (`Capabilities.atomic_move`), each message is sent in its new form first and acked then.
    COMMITTING and IN_DOUBT then hold for each message by itself, and the broker may hold both forms of one, which share
    the header `dlq_id`.

    Three errors of the broker lead from NEW, BEGUN and COMMITTING to another state:

    | error | state | meaning |
    |---|---|---|
    | `StaleMessagesError` | NOT_DONE | the connection that delivered the messages was lost before |
    | `ConnectionLostError` | IN_DOUBT | the connection was lost meanwhile |
    | `MoveRefusedError` (see `refusal`) | REFUSED | the broker does not take what was sent, and closes the connection |

    `on_lost` is called in these three states: the connection that delivered the messages has ended. `on_undone` is
    called in state UNDONE: what was counted as done was not.
    """

    def __init__(
        self,
        moves: Sequence[Move],
        *,
        on_lost: Callable[[Transfer], None],
        on_undone: Callable[[], None],
    ) -> None:
        self.state = State.NEW
        self.refusal: MoveRefusedError | None = None
        self._moves = moves
        self._on_lost = on_lost
        self._on_undone = on_undone
        self._transaction: Transaction
        self._keys: frozenset[str] = frozenset()

    @property
    def epoch(self) -> int:
        """The number of the connection that delivered the messages."""
        return self._moves[0].message.epoch

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
        """Return True if a message of this transfer, which is in doubt, came again: it is undone then."""
        if key(came_again) not in self._keys:
            return False
        self.state = State.UNDONE
        self._on_undone()
        return True

    def _advance(self, action: Callable[[], None], following: State) -> None:
        """Do `action`, and go to the following state or to that of its error."""
        try:
            action()
        except StaleMessagesError:
            self.state = State.NOT_DONE
        except ConnectionLostError:
            self.state = State.IN_DOUBT
            self._keys = frozenset(key(move.message) for move in self._moves)
        except MoveRefusedError as refusal:
            self.state = State.REFUSED
            self.refusal = refusal
        else:
            self.state = following
            return
        self._on_lost(self)
