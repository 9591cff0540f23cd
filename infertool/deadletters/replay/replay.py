"""Replays dead letters: moves each, in order, to its target or to staging, then puts back what is staged.

In a log (`Capabilities.log`) nothing is staged: what is not replayed stays in its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from infertool.brokers.port import Broker
from infertool.deadletters.letters import key
from infertool.deadletters.replay import companions
from infertool.deadletters.replay.audit import Audit, AuditError, Result
from infertool.deadletters.replay.crossings import Crossing
from infertool.deadletters.replay.decide import Decider, Decision, Fate, Plan
from infertool.deadletters.replay.progress import Pace, Tally
from infertool.deadletters.replay.sending import Outcome, Sender, Word
from infertool.deadletters.replay.take import PATIENCE_S, QUIET_S, Bus, State, Taker, Transfer
from infertool.errors import InfertoolError, MoveRefusedError, ServerError
from infertool.message import Message

_STAYING: Final = frozenset({Fate.KEEP, Fate.OTHER, Fate.NEW})

# Letters that cannot be moved stay unsettled and take up the window. A run ends with more than this number.
MOST_HELD = 100


class TooManyHeldError(InfertoolError):
    """Too many letters cannot be moved over STOMP. The letters before them were replayed."""

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(
            f"{queue} holds more than {MOST_HELD} messages that cannot be moved: {reason}",
            advice="move those with a JMS tool first",
        )


class Replay:
    """One run, or the next part of one, and its `tally`, which other threads may read meanwhile."""

    def __init__(
        self,
        bus: Bus,
        plan: Plan,
        *,
        stop: threading.Event,
        pace: Pace | None = None,
        audit: Audit | None = None,
        elsewhere: Sender | None = None,
        broker: Broker,
        tally: Tally | None = None,
    ) -> None:
        self.tally = tally or Tally()
        # The number of letters that an earlier part of the run put back.
        self._restored_before = self.tally.restored
        self._bus = bus
        self._plan = plan
        here = broker.conventions
        crossing = Crossing(here, elsewhere.conventions, elsewhere.capabilities) if elsewhere else None
        can = broker.capabilities
        self._is_log = can.log
        self.tally.stages = not can.log
        self._decider = Decider(
            plan, here, crossing, atomic=can.atomic_move, stages=not can.log, first=self.tally.taken + 1
        )
        self._stop = stop
        self._pace = pace
        self._audit = audit
        # A letter of a log that is copied is sent without a move.
        self._elsewhere = Sender(broker, stop) if can.log and plan.copy and elsewhere is None else elsewhere
        # Keys of letters that the other broker confirmed, and that are still in the queue.
        self._arrived: set[str] = set()
        self._failed_again: set[str] = set()
        self._pending: tuple[Sequence[Decision], Transfer] | None = None
        self._unwritten: AuditError | None = None
        # The number of letters to move one by one: one of them made a transaction fail.
        self._one_by_one = 0

    def run(self) -> Tally:
        """Replay what was in the queue at the start, until the end or a stop; then put back the letters left out.

        Raises `ServerError` (staged letters wait there for the next run), `AuditError`, `TooManyHeldError`.
        """
        began = time.monotonic()
        try:
            self._sweep()
        finally:
            self._restore()
            self.tally.seconds += time.monotonic() - began
        if self._unwritten:
            raise self._unwritten
        return self.tally

    def _sweep(self) -> None:
        plan = self._plan
        with Taker(self._bus, plan.queue, stop=self._stop, selector=plan.selector, on_arrival=self._look) as taker:
            try:
                self.tally.sweeping = True
                while not (self._is_over() or self._stop.is_set() or self._unwritten):
                    messages = taker.take(self._size(), self._patience())
                    if not messages:
                        break
                    self._handle(taker, messages)
            finally:
                self.tally.sweeping = False
                self._settle()

    def _restore(self) -> None:
        staged = self.tally.staged - self._restored_before
        if staged > 0:
            companions.restore(self._bus, self._plan.queue, staged=staged, on_restored=self._restored)

    def _restored(self, count: int) -> None:
        self.tally.restored = self._restored_before + count

    def _is_over(self) -> bool:
        if self._looks_over():
            self._settle()  # the state of the last transaction decides
            return self._looks_over()
        return False

    def _looks_over(self) -> bool:
        plan, tally = self._plan, self.tally
        tally.ended = ""
        if plan.limit is not None and tally.replayed >= plan.limit:
            tally.ended = "limit"
        elif plan.abort_on_refail is not None and tally.failed_again >= plan.abort_on_refail:
            tally.ended = "failed again"
        # Letters in doubt may come again: wait for them.
        elif plan.known_depth is not None and tally.taken >= plan.known_depth and not tally.in_doubt:
            tally.ended = "end"
        return bool(tally.ended)

    def _patience(self) -> float:
        return QUIET_S if self._plan.known_depth is None else PATIENCE_S

    def _size(self) -> int:
        if self._one_by_one:
            return 1
        plan = self._plan
        if plan.known_depth is None:
            return plan.batch
        return max(1, min(plan.batch, plan.known_depth - self.tally.taken))

    def _look(self, message: Message) -> None:
        if self._plan.is_own(message):
            self._failed_again.add(message.headers["replay_id"])
            self.tally.failed_again = len(self._failed_again)

    def _handle(self, taker: Taker, messages: Sequence[Message]) -> None:
        """Handle as many of `messages` as fit into one transaction; the others come first next time."""
        decisions, used = self._decide(messages, taker.capabilities.max_move_bytes)
        taker.give_back(messages[used:])
        held = [each for each in decisions if each.fate is Fate.HOLD]
        left = [each for each in decisions if self._is_log and each.fate in _STAYING]
        moving = [each for each in decisions if each not in held and each not in left]
        replays = sum(each.fate is Fate.REPLAY for each in moving)
        if self._pace and replays and not self._pace.wait(replays):
            return
        if moving:
            self._move(taker, moving)
        if left and self._audit:
            self._audit.intend(left, time.time())
        self._leave(taker, left)
        self._hold(taker, held)

    def _decide(self, messages: Sequence[Message], max_bytes: int) -> tuple[list[Decision], int]:
        decisions: list[Decision] = []
        room, size = self._room(), 0
        for message in messages:
            size += len(message.body)
            if decisions and size > max_bytes:
                break
            decision = self._decider.decide(message)
            if decision.fate is Fate.REPLAY:
                if room == 0:
                    break
                room -= 1
            decisions.append(decision)
        return decisions, len(decisions)

    def _room(self) -> int:
        """Return the number of letters that may be replayed in this transaction."""
        batch = self._plan.batch
        room = batch if self._pace is None else min(batch, self._pace.group())
        limit = self._plan.limit
        return room if limit is None else min(room, limit - self.tally.replayed)

    def _leave(self, taker: Taker, left: Sequence[Decision]) -> None:
        """Let letters of a log stay in their places."""
        if left:
            taker.leave([each.letter.message for each in left])
            self.tally.add(left)
            self._note(left, Result.DONE)

    def _hold(self, taker: Taker, held: Sequence[Decision]) -> None:
        for decision in held:
            taker.hold(decision.letter.message)
        self.tally.add(held)
        if len(taker.held) > MOST_HELD:
            raise TooManyHeldError(self._plan.queue, held[-1].why)

    def _move(self, taker: Taker, decisions: Sequence[Decision]) -> None:
        """Move in one transaction. Counts it as done, and takes that back if it turns out not to be.

        The next transaction is prepared while the broker commits this one: a commit is a disk sync.
        """
        if self._audit:
            self._audit.intend(decisions, time.time())
        fault = None
        if self._elsewhere:
            decisions, fault = self._send_elsewhere(self._elsewhere, decisions)
        if self._is_log:
            staying = [each for each in decisions if each.fate in _STAYING or (self._plan.copy and _is_replay(each))]
            self._leave(taker, staying)
            decisions = [each for each in decisions if each not in staying]
        if decisions:
            self._begin(taker, decisions)
        if fault and not self._stop.is_set():
            raise fault

    def _begin(self, taker: Taker, decisions: Sequence[Decision]) -> None:
        moves = [each.move_without_replay() if self._elsewhere else each.move() for each in decisions]
        transfer = taker.begin(moves, on_undone=partial(self._undo, decisions))
        self._settle()
        self.tally.add(decisions)
        transfer.commit()
        self._pending = decisions, transfer
        if not transfer.is_open:
            self._settle()

    def _send_elsewhere(
        self, elsewhere: Sender, decisions: Sequence[Decision]
    ) -> tuple[list[Decision], ServerError | None]:
        """Send the replays to the other broker. Return the decisions to carry out here, and what ends the run."""
        replays = [
            each
            for each in decisions
            if each.fate is Fate.REPLAY and not (self._arrived and key(each.letter.message) in self._arrived)
        ]
        sent = elsewhere.send([each.replacement for each in replays])
        # Not by `replay_id`: letters that are equal in everything have the same.
        words = {id(each): word for each, word in zip(replays, sent.words, strict=True)}
        settled = [self._settled(each, words.get(id(each))) for each in decisions]
        return [each for each in settled if each], sent.fault

    def _settled(self, decision: Decision, word: Word | None) -> Decision | None:
        """Return the decision to carry out here after the other broker's answer; None if the letter was not sent."""
        if word is None:  # it was not to be sent
            return decision
        match word.outcome:
            case Outcome.CONFIRMED:
                self._decider.accepted(decision)
                return decision
            case Outcome.NOT_SENT:
                self._note([decision], Result.UNDONE)
                return None
            case Outcome.REFUSED:
                self._note([decision], Result.REFUSED, word.reason)
                self._decider.refused(decision, word.reason)
            case Outcome.IN_DOUBT:
                self._note([decision], Result.IN_DOUBT, word.reason)
                self._decider.unconfirmed(decision, word.reason)
        return self._decider.decide(decision.letter.message)

    def _settle(self) -> None:
        """Wait until it is known what became of the transaction that was begun."""
        if self._pending is None:
            return
        decisions, transfer = self._pending
        transfer.wait()
        self._pending = None
        if transfer.refusal:
            self.tally.add(decisions, -1)
            self._refused(decisions, transfer.refusal)
        elif transfer.state is State.NOT_DONE:
            self._take_back(decisions)
        elif transfer.state is State.IN_DOUBT:
            self.tally.in_doubt += len(decisions)
            self._note(decisions, Result.IN_DOUBT)
        else:
            self._one_by_one = max(0, self._one_by_one - len(decisions))
            for each in decisions:
                self._decider.accepted(each)
            self._note(decisions, Result.DONE)

    def _undo(self, decisions: Sequence[Decision], messages: Sequence[Message]) -> None:
        """Take back what was in doubt of a transaction: it was not done with these messages."""
        undone = [each for each in decisions if any(each.letter.message is message for message in messages)]
        self.tally.in_doubt -= len(undone)
        self._take_back(undone)
        self._suspect(decisions)

    def _take_back(self, decisions: Sequence[Decision]) -> None:
        self.tally.add(decisions, -1)
        self._undone(decisions, Result.UNDONE)

    def _undone(self, decisions: Sequence[Decision], result: Result, why: str = "") -> None:
        if self._elsewhere:
            # The other broker has them. They come again here, and are only to be removed.
            self._arrived.update(key(each.letter.message) for each in decisions if each.fate is Fate.REPLAY)
        self._note(decisions, result, why)

    def _refused(self, decisions: Sequence[Decision], refusal: MoveRefusedError) -> None:
        if len(decisions) > 1:
            self._undone(decisions, Result.UNDONE, refusal.reason)
            self._one_by_one = len(decisions)
            return
        self._undone(decisions, Result.REFUSED, refusal.reason)
        if not self._decider.refused(decisions[0], refusal.reason):
            raise refusal

    def _suspect(self, decisions: Sequence[Decision]) -> None:
        """Find the letter for which the broker closes the connection: move one by one."""
        if len(decisions) > 1:
            self._one_by_one = len(decisions)
        else:
            self._decider.lost(decisions[0])

    def _note(self, decisions: Sequence[Decision], result: Result, why: str = "") -> None:
        """Write results to the audit. If that fails, the run ends after the open transaction is settled."""
        if self._audit:
            try:
                self._audit.note(decisions, result, time.time(), why)
            except AuditError as fault:
                self._unwritten = fault


def _is_replay(decision: Decision) -> bool:
    return decision.fate is Fate.REPLAY
