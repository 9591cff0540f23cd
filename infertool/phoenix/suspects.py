"""The search for the push that ends the channel: suspects are tested until one is the cause or all are confirmed.

The rules, and why they are so, are in docs/guarantees.md, "When the channel crashes". Pure: no lock, no I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import chain
from operator import attrgetter
from typing import Generic, TypeVar

from msgspec import Struct

from infertool.net.timing import Schedule
from infertool.phoenix.push import BATCH_EVENT, Case, Entry

T = TypeVar("T")

# Different pushes of an event that must end the channel, none of them confirmed in between, until the event waits.
_DIFFERENT = 2
# Waits between trials, in seconds: while nothing passes, and while other events do, which each trial holds up.
NOTHING_PASSES = Schedule((2.0, 5.0, 10.0, 20.0, 30.0, 60.0))
OTHERS_PASS = Schedule((30.0, 60.0, 120.0, 300.0))


class EventCrashes:
    """Event by event, the pushes that ended the channel since one of that event was confirmed. Times are monotonic."""

    def __init__(self) -> None:
        self._pushes: dict[str, set[int]] = {}
        self._holds: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._pushes)

    def crashed(self, event: str, number: int, now: float, *, others_pass: bool) -> float | None:
        """Note that push `number` ended the channel; return for how many seconds its event waits, if it does."""
        pushes = self._pushes.setdefault(event, set())
        pushes.add(number)
        if len(pushes) < _DIFFERENT:
            return None
        holds = self._holds[event] = self._holds.get(event, 0) + 1
        wait_s = (OTHERS_PASS if others_pass else NOTHING_PASSES).wait(holds)
        self._until[event] = now + wait_s
        return wait_s

    def passed(self, event: str) -> None:
        """Note that a push of `event` was handled."""
        self._pushes.pop(event, None)
        self._holds.pop(event, None)
        self._until.pop(event, None)

    def clear(self, event: str, number: int) -> None:
        """Note that push `number` itself was the cause, not its event."""
        pushes = self._pushes.get(event, set())
        pushes.discard(number)
        if not pushes:
            self.passed(event)

    def is_of_one(self, event: str, number: int) -> bool:
        """Whether no push of `event` but `number` ended the channel."""
        return self._pushes.get(event, set()) <= {number}

    def holds(self, event: str) -> bool:
        """Whether pushes of `event` are tried one at a time, if at all."""
        return event in self._until

    def waits(self, event: str, now: float) -> bool:
        """Whether it is too early to try one of `event`."""
        return self._until.get(event, 0.0) > now

    def expire(self) -> None:
        """Let every event be tried now: behind a new connection there may be another server."""
        self._until = dict.fromkeys(self._until, 0.0)


# Ends of the channel after which a push that was unconfirmed in them is tested alone, and may be the cause.
REPEATED = 2
# The same for a push of an event of which none passes, while other events do.
_ENOUGH = 3


class Cause(StrEnum):
    """The cause of an end of the channel."""

    UNKNOWN = "unknown"
    PUSH = "push"
    PAYLOAD = "payload"
    BATCH = "batch"
    EVENT = "event"
    SERVER = "server"


class Finding(Struct, Generic[T], frozen=True, gc=False):
    """The conclusion from an end of the channel about `suspect`, the likeliest of `lost` pushes.

    PUSH: it is the cause, and taken out. PAYLOAD: it goes on with its reduced payload. EVENT and SERVER: pushes of its
    event wait for `wait_s`; else `wait_s` is how long it waits itself. The batches of `apart` are taken out, too.
    `crashes` counts the ends of the channel at which it was unconfirmed.
    """

    cause: Cause
    suspect: Entry[T]
    lost: int
    crashes: int
    apart: Sequence[Entry[T]] = ()
    wait_s: float | None = None


class Suspects(Generic[T]):
    """The pushes that were unconfirmed when the channel ended, and which of all pushes may be sent next.

    `active` is False while there is nothing to find out: then everything may be sent.
    """

    def __init__(self) -> None:
        self.active = False
        self._pool: list[Entry[T]] = []
        self._parked: list[Entry[T]] = []
        self._crashes = EventCrashes()
        # The events of which one was confirmed since the channel ended the last time.
        self._passing: set[str] = set()
        self._unsettled = 0
        self._needed = 1
        self._others_first = True

    def __len__(self) -> int:
        """Return how many pushes are kept here."""
        return len(self._pool) + len(self._parked)

    def __iter__(self) -> Iterator[Entry[T]]:
        """Return the pushes that are kept here."""
        return chain(self._pool, self._parked)

    @property
    def others_pass(self) -> bool:
        """Whether anything was confirmed since the channel ended the last time."""
        return bool(self._passing)

    def waiting_long(self, now: float) -> int:
        """Return how many of them may not be tried yet."""
        pool = sum(not self._may_try(entry, now) for entry in self._pool)
        return pool + sum(self._crashes.waits(entry.push.event, now) for entry in self._parked)

    def add(self, entry: Entry[T], crashes: int) -> None:
        """Take in a push that took part in `crashes` ends of the channel, maybe as part of a batch."""
        self._suspect(entry).crashes = crashes
        self._take_back([entry])

    def ended(self, lost: list[Entry[T]], now: float, *, too_large: bool) -> Finding[T]:
        """Note that the channel ended with `lost` unconfirmed, in the order they were sent; they are taken in.

        `too_large` says that the server closed the connection over the size of a message.
        """
        suspect = max(lost, key=lambda entry: len(entry.push.payload)) if too_large else lost[0]
        knew, passing = self.active, self._passing
        self._passing, self._others_first = set(), False
        for entry in lost:
            self._suspect(entry).crashes += 1
        case = self._suspect(suspect)
        case.first = True
        apart = [entry for entry in lost if entry.push.event == BATCH_EVENT]
        cause = Cause.BATCH if suspect in apart else self._judge(suspect, passing, alone=len(lost) == 1)
        wait_s = None
        if cause is Cause.UNKNOWN:
            cause, wait_s = self._hold(suspect, now, passing if knew else {suspect.push.event})
        crashes = case.crashes
        out = [*apart, suspect] if cause is Cause.PUSH else apart
        self._take_back([entry for entry in lost if entry not in out])
        for entry in out:
            self.forget(entry)
        return Finding(cause, suspect, len(lost), crashes, apart, wait_s)

    def choose(self, waiting: deque[Entry[T]], now: float, *, busy: bool) -> list[Entry[T]]:
        """Return what to send now; what is no suspect comes from `waiting`. `busy`: there are unconfirmed pushes."""
        self._park(waiting)
        if not self._passing:
            # One by one, until something passes: those first of which the least is known. The newest of them, since
            # pushes that are the cause often come in a row.
            return (
                [] if busy else self._take([waiting.popleft()] if waiting else _least(self._triable(now), newest=True))
            )
        test = self._next_test(now)
        if test and busy:
            return []
        if waiting and (self._others_first or not test):
            self._others_first = False
            flowing = list(waiting)
            waiting.clear()
            return flowing
        self._others_first = True
        return self._take(test)

    def settled(self, entry: Entry[T], *, in_order: bool) -> None:
        """Note that a push was handled: confirmed, or refused with an answer.

        `in_order` says whether the channel handles pushes in the order they are sent. Then a push that was
        first and is not the cause means that the channel ends by chance: the next suspect needs more evidence.
        """
        if in_order and entry.case and entry.case.first:
            self._needed = REPEATED
        self._passing.add(entry.push.event)
        self._crashes.passed(entry.push.event)
        self.forget(entry)

    def forget(self, entry: Entry[T]) -> None:
        """Note that a push is not waited for any more."""
        if entry.case:
            entry.case = None
            self._unsettled -= 1
        self.active = self._unsettled > 0 or bool(self._crashes) or bool(self._parked)

    def lost(self, entries: Sequence[Entry[T]], *, connection: bool) -> None:
        """Take suspects back that were lost for another reason: with the connection, or with the membership alone.

        Behind a new connection there may be another server, so everything may be tried again.
        """
        self._passing, self._others_first = set(), False
        self._take_back(entries)
        if connection:
            self._crashes.expire()
            for entry in self._pool:
                self._suspect(entry).not_before = 0.0

    def _take_back(self, entries: Sequence[Entry[T]]) -> None:
        self._pool = sorted([*self._pool, *entries], key=attrgetter("number"))

    def _suspect(self, entry: Entry[T]) -> Case:
        if entry.case is None:
            entry.case = Case()
            self._unsettled += 1
            self.active = True
        return entry.case

    def _judge(self, suspect: Entry[T], passing: set[str], *, alone: bool) -> Cause:
        case, push = self._suspect(suspect), suspect.push
        if not alone or case.crashes < REPEATED:
            return Cause.UNKNOWN
        if push.reduced:
            suspect.push = push.without_payload()
            return Cause.PAYLOAD
        if push.event in passing:
            case.evidence += 1
            if case.evidence >= self._needed:
                self._crashes.clear(push.event, suspect.number)
                return Cause.PUSH
        elif passing and case.crashes >= _ENOUGH and self._crashes.is_of_one(push.event, suspect.number):
            return Cause.PUSH
        return Cause.UNKNOWN

    def _hold(self, suspect: Entry[T], now: float, passing: set[str]) -> tuple[Cause, float | None]:
        """Find out whether it is the event or the server; have the suspect wait if nothing was said about it."""
        event, case = suspect.push.event, self._suspect(suspect)
        wait_s = self._crashes.crashed(event, suspect.number, now, others_pass=bool(passing))
        if wait_s is not None:
            return Cause.EVENT if passing else Cause.SERVER, wait_s
        if event in passing or (passing and case.crashes == _ENOUGH - 1):
            return Cause.UNKNOWN, None
        case.holds += 1
        wait_s = NOTHING_PASSES.wait(case.holds)
        case.not_before = now + wait_s
        return Cause.UNKNOWN, wait_s

    def _park(self, waiting: deque[Entry[T]]) -> None:
        """Keep pushes of events that wait apart, and give them back when their event goes on."""
        if self._crashes or self._parked:
            entries = sorted([*self._parked, *waiting], key=attrgetter("number"))
            self._parked = [entry for entry in entries if self._crashes.holds(entry.push.event)]
            waiting.clear()
            waiting.extend([entry for entry in entries if not self._crashes.holds(entry.push.event)])

    def _next_test(self, now: float) -> list[Entry[T]]:
        triable = self._triable(now)
        alone = [entry for entry in triable if self._alone(entry)]
        provable = [entry for entry in alone if entry.push.event in self._passing]
        if provable:
            return [min(provable, key=lambda entry: (not self._suspect(entry).first, entry.number))]
        grouped = [entry for entry in triable if not self._alone(entry)]
        events = {entry.push.event for entry in grouped}
        incomparable = [entry for entry in alone if entry.push.event not in events]
        return _least(incomparable, newest=False) or grouped[: (len(grouped) + 1) // 2]

    def _triable(self, now: float) -> list[Entry[T]]:
        pool = [entry for entry in self._pool if self._may_try(entry, now)]
        return pool + [entry for entry in self._parked if not self._crashes.waits(entry.push.event, now)]

    def _may_try(self, entry: Entry[T], now: float) -> bool:
        event = entry.push.event
        if event in self._passing:
            return True
        return self._suspect(entry).not_before <= now and not self._crashes.waits(event, now)

    def _alone(self, entry: Entry[T]) -> bool:
        case = entry.case
        return self._crashes.holds(entry.push.event) or (case is not None and (case.first or case.crashes >= REPEATED))

    def _take(self, entries: list[Entry[T]]) -> list[Entry[T]]:
        if entries:
            self._pool = [entry for entry in self._pool if entry not in entries]
            self._parked = [entry for entry in self._parked if entry not in entries]
        return entries


def _least(entries: list[Entry[T]], *, newest: bool) -> list[Entry[T]]:
    """Return the entry with the least evidence against it, if there is one; of several, the oldest or the newest."""

    def weight(entry: Entry[T]) -> tuple[bool, int, int]:
        number = -entry.number if newest else entry.number
        return (entry.case.first, entry.case.crashes, number) if entry.case else (False, 0, number)

    return [min(entries, key=weight)] if entries else []
