"""What is to become of each dead letter."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from infertool.brokers.port import Conventions, Move, Selector
from infertool.deadletters.ids import event_id
from infertool.deadletters.letters import DeadLetter, key, read
from infertool.deadletters.replay import companions, crossings, sending
from infertool.deadletters.replay.crossings import Crossing
from infertool.deadletters.replay.editing import Edit, EditError
from infertool.deadletters.selection import Selection
from infertool.filters.expression import FilterError, NotEvaluatedError
from infertool.message import Message, Outgoing

# A target that refused so many letters, one after the other, is not asked again. Fewer may be odd letters of one kind.
MOST_REFUSALS = 20
# A letter that was alone in so many transactions that ended with the connection is not tried again.
_LOSSES = 3
# Characters of an expression that are shown in a reason.
_SHOWN = 60


class Fate(StrEnum):
    """What becomes of a letter."""

    REPLAY = "replay"
    PARK = "park"
    # It matches, but cannot or must not be replayed.
    KEEP = "keep"
    # It does not match.
    OTHER = "other"
    # It died after the run began.
    NEW = "new"
    # Another letter that is the same one is replayed or parked, so this one is only removed.
    DOUBLE = "double"
    # It cannot be moved without harm, so it is not touched.
    HOLD = "hold"


class Fault(StrEnum):
    """What went wrong with one letter, so that it must be named."""

    REFUSED = "refused"
    # It was sent, and never confirmed: it may have arrived.
    UNCONFIRMED = "unconfirmed"
    # The connection ends whenever it is sent.
    UNSENDABLE = "unsendable"


@dataclass(frozen=True, slots=True)
class Decision:
    """One letter's fate. `replacement` is what is sent in place of it, to `target`; `why` is for people.

    `losses` says what its target cannot carry. `fault` is set where this letter was tried and did not get through.
    """

    fate: Fate
    letter: DeadLetter
    replacement: Outgoing
    also: Outgoing | None = None
    replay_id: str = ""
    why: str = ""
    fault: Fault | None = None
    losses: tuple[str, ...] = ()

    def move(self) -> Move:
        """Return it as a move in one broker."""
        if self.fate is Fate.DOUBLE:
            return Move(self.letter.message, None)
        return Move(self.letter.message, self.replacement, self.also)

    def move_without_replay(self) -> Move:
        """Return it as a move for a replay that was sent to another broker already."""
        return Move(self.letter.message, self.also) if self.fate is Fate.REPLAY else self.move()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is to do with `queue`.

    `run` is its id. `began` (seconds since the epoch) and `depth` are of its start. `depth` is None where the broker
    does not tell it; only then `began` counts: letters that died after it are left alone. `to` replaces every origin.
    `batch` letters at most share a transaction. `reach` is how many letters the `selector` finds, where that is known.
    """

    queue: str
    run: str
    began: float
    depth: int | None
    selection: Selection = field(default_factory=Selection)
    to: str | None = None
    copy: bool = False
    edit: Edit | None = None
    max_replays: int = 3
    parking: str | None = None
    limit: int | None = None
    selector: Selector | None = None
    reach: int | None = None
    batch: int = 100
    abort_on_refail: int | None = None

    @property
    def known_depth(self) -> int | None:
        """How many letters are to be seen; with a selector the others stay where they are."""
        return self.reach if self.selector else self.depth

    def is_own(self, message: Message) -> bool:
        """Say whether this run has replayed the message: it failed again."""
        return (message.native.get("replay_id") or "").startswith(f"{self.run}-")

    def is_new(self, letter: DeadLetter) -> bool:
        """Say whether it died after the start, as far as that can be told.

        Where the depth is known it bounds the run: the time of a death is by the consumer's clock, and ours may differ.
        """
        if self.is_own(letter.message):
            return True
        return self.known_depth is None and letter.failed_at is not None and letter.failed_at > self.began


@dataclass(frozen=True, slots=True)
class _Delivery:
    """One delivery of a letter. Only where a message was browsed, or read from a file, there is no `token`."""

    key: str
    partition: str
    epoch: int
    token: str | int

    @classmethod
    def of(cls, message: Message) -> _Delivery:
        """Return the delivery that `message` is."""
        return cls(key(message), message.partition, message.epoch, message.token or id(message))

    def is_other(self, message: Message) -> bool:
        """Return True if `message` is another letter, not this one delivered again.

        Where the producer's id is the message's, two letters with one `dlq_id` may be equal in everything. One that was
        delivered before may be this one, given back after a move that was refused: taking it off would lose it.
        """
        other = _Delivery.of(message)
        if (other.key, other.partition) != (self.key, self.partition):
            return True
        return other.epoch == self.epoch and other.token != self.token and not message.redelivered


class Decider:
    """Decides about letters, one by one, and remembers what targets refused. Replays are numbered from `first`.

    `here` are the conventions of the broker that has the letters, whose moves are `atomic` or not; `crossing` leads to
    the broker that gets the replays, where that is another one, or the letters are those of an archive. Unless it
    `stages`, letters that stay are not moved meanwhile.
    """

    def __init__(
        self,
        plan: Plan,
        here: Conventions,
        crossing: Crossing | None = None,
        *,
        atomic: bool = True,
        stages: bool = True,
        first: int = 1,
    ) -> None:
        self._plan = plan
        self._here = here
        self._crossing = crossing
        self._there = crossing.there if crossing else here
        self._atomic = atomic
        self._stages = stages
        # Deliveries of letters that are replayed or parked, by what copies of them have in common.
        self._dealt: dict[str, _Delivery] = {}
        self._staging = companions.staging(plan.queue)
        self._numbers = itertools.count(first)
        self._refused_targets: dict[str, str] = {}
        self._failed: dict[str, tuple[Fault, str]] = {}
        self._immovable: dict[str, tuple[Fault, str]] = {}
        self._refusals: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()

    def decide(self, message: Message) -> Decision:
        """Return what becomes of `message`."""
        letter = read(message)
        if letter.opaque:
            return self._stay(Fate.HOLD, letter, "its body is empty or of a JMS type that STOMP cannot show")
        if not sending.can_be_carried(message, self._here):
            return self._stay(Fate.HOLD, letter, "it has more headers, or longer ones, than the broker takes")
        if self._immovable and (failure := self._immovable.get(key(message))):
            fault, why = failure
            return self._stay(Fate.HOLD, letter, why, fault)
        if self._plan.is_new(letter):
            return self._stay(Fate.NEW, letter, "it arrived after the start")
        copies = letter.copies_key
        if copies and (dealt := self._dealt.get(copies)) and dealt.is_other(message):
            return self._double(letter)
        decision = self._choose(letter)
        if copies and decision.fate in {Fate.REPLAY, Fate.PARK}:
            self._dealt[copies] = _Delivery.of(message)
        return decision

    def _double(self, letter: DeadLetter) -> Decision:
        why = "a second copy of a letter that was dealt with (same dlq_id)"
        if self._plan.copy:
            return self._stay(Fate.KEEP, letter, why)
        return self._stay(Fate.DOUBLE, letter, why)

    def sent_before(self, message: Message) -> None:
        """Note that an earlier run sent this letter of an archive: further copies of it are not to be sent."""
        if copies := read(message).copies_key:
            self._dealt[copies] = _Delivery.of(message)

    def accepted(self, decision: Decision) -> None:
        """Note that the broker took this decision."""
        self._refusals.pop(decision.replacement.destination, None)

    def refused(self, decision: Decision, reason: str) -> bool:
        """Note that the broker refused this decision alone; return whether another one is possible."""
        target, letter = decision.replacement.destination, key(decision.letter.message)
        self._refusals[target] += 1
        self._dealt.pop(decision.letter.copies_key, None)
        given_up = self._refusals[target] >= MOST_REFUSALS
        if decision.fate not in {Fate.REPLAY, Fate.PARK}:
            self._immovable[letter] = Fault.REFUSED, f"the broker refused to move it: {reason}"
            return not given_up
        self._failed[letter] = Fault.REFUSED, f"the broker refused it: {reason}"
        if given_up:
            self._refused_targets[target] = reason
        return True

    def lost(self, decision: Decision) -> None:
        """Note that the connection was lost while this letter alone was moved."""
        letter = key(decision.letter.message)
        self._losses[letter] += 1
        if self._losses[letter] >= _LOSSES:
            self._immovable[letter] = Fault.UNSENDABLE, "the broker ends the connection when it is sent"

    def unconfirmed(self, decision: Decision, reason: str) -> None:
        """Note that this letter was sent to another broker, which did not confirm it."""
        why = f"the broker did not confirm it, so it may have arrived: {reason}"
        self._dealt.pop(decision.letter.copies_key, None)
        self._failed[key(decision.letter.message)] = Fault.UNCONFIRMED, why

    def _choose(self, letter: DeadLetter) -> Decision:
        try:
            matches = self._plan.selection.matches(letter)
        except NotEvaluatedError as fault:
            why = f"--where {fault.expression[:_SHOWN]!r} cannot be evaluated on {event_id(letter)}: {fault.reason}"
            return self._stay(Fate.KEEP, letter, why)
        except FilterError as fault:  # one odd letter must not end the run for the others
            return self._stay(Fate.KEEP, letter, f"--where says neither yes nor no: {fault.reason}")
        return self._replay(letter) if matches else self._stay(Fate.OTHER, letter, "it does not match")

    def _replay(self, letter: DeadLetter) -> Decision:
        plan = self._plan
        if self._failed and (failure := self._failed.get(key(letter.message))):
            fault, why = failure
            return self._stay(Fate.KEEP, letter, why, fault)
        if letter.replay_count >= plan.max_replays:
            return self._exhausted(letter)
        target = plan.to or (self._crossing.queue(letter.origin) if self._crossing else letter.origin)
        why = self._obstacle(target, self._there)
        if why:
            return self._stay(Fate.KEEP, letter, why)
        try:
            body = None if plan.edit is None else plan.edit.body(letter)
        except EditError as fault:
            return self._stay(Fate.KEEP, letter, str(fault))
        if self._crossing:
            return self._cross(self._crossing, letter, target, body)
        replay_id = f"{plan.run}-{next(self._numbers)}"
        replacement = sending.replay(letter, target, self._here, replay_id=replay_id, body=body)
        return Decision(Fate.REPLAY, letter, replacement, self._original(letter), replay_id)

    def _cross(self, crossing: Crossing, letter: DeadLetter, target: str, body: bytes | None) -> Decision:
        """Return the replay of a letter on another broker, or out of an archive."""
        replay_id = crossings.replay_id(letter)
        replacement = crossing.translated(
            sending.replay(letter, target, crossing.there, replay_id=replay_id, body=body, here=self._here)
        )
        if not crossing.fits(replacement):
            return self._stay(Fate.KEEP, letter, "it has more headers, or longer ones, than its target takes")
        losses = crossing.losses(letter, replacement)
        return Decision(Fate.REPLAY, letter, replacement, self._original(letter), replay_id, losses=losses)

    def _original(self, letter: DeadLetter) -> Outgoing | None:
        """Return the letter for staging where it is to stay beside its replay."""
        if not (self._plan.copy and self._stages):
            return None
        return sending.staged(letter.message, self._staging, self._here, atomic=self._atomic)

    def _exhausted(self, letter: DeadLetter) -> Decision:
        why = f"it was replayed {letter.replay_count} times"
        parking = self._plan.parking
        if parking is None:
            return self._stay(Fate.KEEP, letter, why)
        if obstacle := self._obstacle(parking, self._here):
            return self._stay(Fate.KEEP, letter, f"{why}, and cannot be parked: {obstacle}")
        return Decision(
            Fate.PARK, letter, sending.unchanged(letter.message, parking, self._here, atomic=self._atomic), why=why
        )

    def _obstacle(self, target: str, conventions: Conventions) -> str:
        if not target:
            return "nothing says where it came from; --to does"
        if not conventions.is_queue(target):
            return f"{target!r} is not one queue; --to says where to"
        if target == self._plan.queue and not (self._crossing and self._plan.to):
            return "it came from this very queue; --to says where to"
        if target in companions.beside(self._plan.queue):
            return f"{target} is what runs on these letters need for themselves; --to says where to"
        reason = self._refused_targets.get(target)
        return f"the broker refuses all that is sent to {target}: {reason}" if reason else ""

    def _stay(self, fate: Fate, letter: DeadLetter, why: str, fault: Fault | None = None) -> Decision:
        stays = sending.staged(letter.message, self._staging, self._here, atomic=self._atomic)
        return Decision(fate, letter, stays, why=why, fault=fault)
