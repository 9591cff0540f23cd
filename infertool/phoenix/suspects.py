"""The search for the push that ends the channel: suspects are tested until one is found or all are confirmed.

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

# Number of different pushes of one event that must end the channel, with none of that event confirmed in between,
# before all pushes of the event wait.
_DIFFERENT = 2
# Waits between trials, in seconds: while nothing passes; while other events pass, which each trial delays.
NOTHING_PASSES = Schedule((2.0, 5.0, 10.0, 20.0, 30.0, 60.0))
OTHERS_PASS = Schedule((30.0, 60.0, 120.0, 300.0))


class EventCrashes:
    """For each event, the pushes that ended the channel since a push of that event was last confirmed.

    Times are monotonic, in seconds.
    """

    def __init__(self) -> None:
        self._pushes: dict[str, set[int]] = {}
        self._holds: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Return True if any push ended the channel."""
        return bool(self._pushes)

    def crashed(self, event: str, number: int, now: float, *, others_pass: bool) -> float | None:
        """Note that push `number` ended the channel; return the seconds its event waits, None if it does not wait."""
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
        """Return True if no push of `event` other than `number` ended the channel."""
        return self._pushes.get(event, set()) <= {number}

    def holds(self, event: str) -> bool:
        """Return True if pushes of `event` wait, and are tried one at a time."""
        return event in self._until

    def waits(self, event: str, now: float) -> bool:
        """Return True if it is too early to try a push of `event`."""
        return self._until.get(event, 0.0) > now

    def expire(self) -> None:
        """Allow a trial of every event now: a new connection may lead to another server."""
        self._until = dict.fromkeys(self._until, 0.0)


# Number of ends of the channel after which a push that was unconfirmed at each is tested alone.
REPEATED = 2
# Number of ends after which a push is the cause although no push of its event passes, while other events pass.
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
    """The conclusion from an end of the channel about `suspect`, the likeliest cause among `lost` unconfirmed pushes.

    PUSH: the suspect is the cause, and is removed. PAYLOAD: it is tried again with its reduced payload. BATCH: it is a
    batch. EVENT, SERVER: all pushes of its event wait for `wait_s` seconds. UNKNOWN: it waits alone for `wait_s`, if
    set. The batches in `apart` are removed, too. `crashes` counts the ends at which the suspect was unconfirmed.
    """

    cause: Cause
    suspect: Entry[T]
    lost: int
    crashes: int
    apart: Sequence[Entry[T]] = ()
    wait_s: float | None = None


class Suspects(Generic[T]):
    """The pushes that were unconfirmed when the channel ended, and the choice of the pushes that may be sent next.

    `active` is False while there are no suspects: then every push may be sent.
    """

    def __init__(self) -> None:
        self.active = False
        self._pool: list[Entry[T]] = []
        self._parked: list[Entry[T]] = []
        self._crashes = EventCrashes()
        # The events with a confirmed push since the last end of the channel.
        self._passing: set[str] = set()
        self._unsettled = 0
        self._needed = 1
        self._others_first = True

    def __len__(self) -> int:
        """Return the number of pushes that are kept here."""
        return len(self._pool) + len(self._parked)

    def __iter__(self) -> Iterator[Entry[T]]:
        """Iterate over the pushes that are kept here."""
        return chain(self._pool, self._parked)

    def lacks(self, event: str) -> bool:
        """Return True if pushes of `event` are suspect, and none was confirmed since the last end of the channel."""
        return event not in self._passing and any(entry.push.event == event for entry in self)

    def waiting_long(self, now: float) -> int:
        """Return the number of pushes that must not be tried yet."""
        pool = sum(not self._may_try(entry, now) for entry in self._pool)
        return pool + sum(self._crashes.waits(entry.push.event, now) for entry in self._parked)

    def add(self, entry: Entry[T], crashes: int) -> None:
        """Add a push that was unconfirmed at `crashes` ends of the channel, alone or in a batch."""
        self._suspect(entry).crashes = crashes
        self._take_back([entry])

    def ended(self, lost: list[Entry[T]], now: float, *, too_large: bool, largest: int) -> Finding[T]:
        """Add `lost`, the pushes that were unconfirmed when the channel ended, in the order of sending; judge them.

        With `too_large` the server closed the connection because of the size of a message. Then a push that is alone
        is the cause if its payload has more bytes than `largest`, the largest that was ever handled; 0 if none was.
        """
        suspect = max(lost, key=lambda entry: len(entry.push.payload)) if too_large else lost[0]
        by_size = too_large and 0 < largest < len(suspect.push.payload)
        knew, passing = self.active, self._passing
        self._passing, self._others_first = set(), False
        for entry in lost:
            self._suspect(entry).crashes += 1
        case = self._suspect(suspect)
        case.first = True
        apart = [entry for entry in lost if entry.push.event == BATCH_EVENT]
        alone, wait_s = len(lost) == 1, None
        cause = Cause.BATCH if suspect in apart else self._judge(suspect, passing, alone=alone, by_size=by_size)
        if cause is Cause.UNKNOWN and not by_size:
            cause, wait_s = self._hold(suspect, now, passing if knew else {suspect.push.event})
        crashes = case.crashes
        out = [*apart, suspect] if cause is Cause.PUSH else apart
        self._take_back([entry for entry in lost if entry not in out])
        for entry in out:
            self.forget(entry)
        return Finding(cause, suspect, len(lost), crashes, apart, wait_s)

    def choose(self, waiting: deque[Entry[T]], now: float, *, busy: bool, room: int) -> list[Entry[T]]:
        """Return the pushes to send now: suspects, or up to `room` pushes from `waiting`.

        `busy`: there are unconfirmed pushes.
        """
        self._park(waiting)
        if not self._passing:
            # One at a time until a push passes, first those with the least evidence against them; of these the newest,
            # since pushes that end the channel often follow each other.
            return (
                [] if busy else self._take([waiting.popleft()] if waiting else _least(self._triable(now), newest=True))
            )
        test = self._next_test(now)
        if test and busy:
            return []
        if waiting and (self._others_first or not test):
            self._others_first = False
            return take_first(waiting, room)
        self._others_first = True
        return self._take(test)

    def settled(self, entry: Entry[T], *, in_order: bool) -> None:
        """Note that the channel handled a push: it confirmed the push, or rejected it with a reply.

        `in_order` is True if the channel handles pushes in the order of sending. If a push was the first unconfirmed
        one at an end and is handled now, the channel ends at random: the next suspect needs more evidence.
        """
        if in_order and entry.case and entry.case.first:
            self._needed = REPEATED
        self._passing.add(entry.push.event)
        self._crashes.passed(entry.push.event)
        self.forget(entry)

    def forget(self, entry: Entry[T]) -> None:
        """Remove a push from the suspects: nothing waits for its confirmation any more."""
        if entry.case:
            entry.case = None
            self._unsettled -= 1
        self.active = self._unsettled > 0 or bool(self._crashes) or bool(self._parked)

    def lost(self, entries: Sequence[Entry[T]], *, connection: bool) -> None:
        """Take back suspects that were lost for another reason: with the connection, or with the membership only.

        A new connection may lead to another server, so every push may be tried again.
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

    def _judge(self, suspect: Entry[T], passing: set[str], *, alone: bool, by_size: bool) -> Cause:
        case, push = self._suspect(suspect), suspect.push
        if not alone or (case.crashes < REPEATED and not by_size):
            return Cause.UNKNOWN
        if push.reduced:
            suspect.push = push.without_payload()
            return Cause.PAYLOAD
        if push.event in passing:
            case.evidence += 1
        if by_size or case.evidence >= self._needed:
            self._crashes.clear(push.event, suspect.number)
            return Cause.PUSH
        only_others_pass = bool(passing) and push.event not in passing
        if only_others_pass and case.crashes >= _ENOUGH and self._crashes.is_of_one(push.event, suspect.number):
            return Cause.PUSH
        return Cause.UNKNOWN

    def _hold(self, suspect: Entry[T], now: float, passing: set[str]) -> tuple[Cause, float | None]:
        """Return EVENT or SERVER with the wait of the event; else UNKNOWN, with the wait of the suspect if it waits."""
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
        """Move pushes of waiting events from `waiting` to the parked ones, and back when their event may be sent."""
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


def take_first(waiting: deque[Entry[T]], most: int) -> list[Entry[T]]:
    """Remove and return the first pushes, at most `most`."""
    if len(waiting) > most:
        return [waiting.popleft() for _ in range(most)]
    entries = list(waiting)
    waiting.clear()
    return entries


def _least(entries: list[Entry[T]], *, newest: bool) -> list[Entry[T]]:
    """Return the entry with the least evidence against it, or nothing; of equal ones the oldest or the newest."""

    def weight(entry: Entry[T]) -> tuple[bool, int, int]:
        number = -entry.number if newest else entry.number
        return (entry.case.first, entry.case.crashes, number) if entry.case else (False, 0, number)

    return [min(entries, key=weight)] if entries else []
