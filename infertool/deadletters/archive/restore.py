"""Sending an archive back: each message once, as far as the journal tells."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from infertool.brokers.port import Broker, Capabilities, Conventions
from infertool.deadletters import selection
from infertool.deadletters.archive import records
from infertool.deadletters.archive.journal import Journal
from infertool.deadletters.letters import DeadLetter, key
from infertool.deadletters.replay.audit import Audit, Result
from infertool.deadletters.replay.crossings import Crossing
from infertool.deadletters.replay.decide import Decider, Decision, Fate, Plan
from infertool.deadletters.replay.progress import Pace, Tally
from infertool.deadletters.replay.sending import Outcome, Sender, Word
from infertool.deadletters.selection import Group
from infertool.errors import UsageError
from infertool.message import Message

_SENDS: Final = frozenset({Fate.REPLAY, Fate.PARK})
_RESULTS: Final = {
    Outcome.CONFIRMED: Result.DONE,
    Outcome.REFUSED: Result.REFUSED,
    Outcome.IN_DOUBT: Result.IN_DOUBT,
    Outcome.NOT_SENT: Result.UNDONE,
}


@dataclass(frozen=True, slots=True)
class Archive:
    """The letters of a file: `only` those of one queue, which is spelt as by `conventions`; of all of them if None."""

    path: Path
    only: str | None
    conventions: Conventions

    def letters(self) -> Iterator[tuple[str, Message]]:
        """Yield each letter once, with its key: a drain that was interrupted may have written some twice.

        Raises `ArchiveError`.
        """
        seen: set[str] = set()
        for batch in records.read(self.path):
            for message in batch.messages:
                letter = key(message)
                if letter not in seen and self._is_wanted(message.source):
                    seen.add(letter)
                    yield letter, message

    def _is_wanted(self, queue: str) -> bool:
        if self.only is None:
            return True
        try:
            return self.conventions.queue(queue) == self.only
        except UsageError:  # another broker has no such name
            return False


@dataclass(slots=True)
class Look:
    """What an archive holds, each message once.

    `sent_before` is what the journal knows as sent; `tally` is what a run would do with the others.
    `oldest` and `newest` are when the matching ones died (seconds since the epoch); `groups` are those by stage and
    error.
    """

    records: int = 0
    sent_before: int = 0
    tally: Tally = field(default_factory=Tally)
    groups: list[Group] = field(default_factory=list)

    @property
    def oldest(self) -> float | None:
        """When the first of those that match died."""
        return min((group.first for group in self.groups if group.first is not None), default=None)

    @property
    def newest(self) -> float | None:
        """When the last of those that match died."""
        return max((group.last for group in self.groups if group.last is not None), default=None)


def plan_for(path: Path, plan: Plan) -> Plan:
    """Return `plan` for an archive instead of a queue: there is nothing in it that came after the start."""
    return replace(plan, queue=f"file:{path}", began=math.inf, depth=None, copy=False)


def look(archive: Archive, plan: Plan, journal: Journal, conventions: Conventions, can: Capabilities) -> Look:
    """Read all of the archive, and say what a run would do. Raises `ArchiveError`: nothing of such a file is sent."""
    found = Look()
    decider = Decider(plan_for(archive.path, plan), conventions, Crossing(conventions, conventions, can))
    found.groups = selection.group(_matching(archive, journal, found, decider), ("stage", "error_type"))
    return found


def _matching(archive: Archive, journal: Journal, found: Look, decider: Decider) -> Iterator[DeadLetter]:
    for letter, message in archive.letters():
        found.records += 1
        if journal.has(letter):
            found.sent_before += 1
            decider.sent_before(message)
            continue
        decision = decider.decide(message)
        found.tally.add([decision])
        if decision.fate in _SENDS:
            yield decision.letter


class Restore:
    """One run. `tally` may be read from other threads while it goes on."""

    def __init__(
        self,
        broker: Broker,
        archive: Archive,
        plan: Plan,
        journal: Journal,
        *,
        stop: threading.Event,
        pace: Pace | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.tally = Tally(stages=False)
        self._sender = Sender(broker, stop)
        self._archive = archive
        self._plan = plan_for(archive.path, plan)
        crossing = Crossing(broker.conventions, broker.conventions, broker.capabilities)
        self._decider = Decider(self._plan, broker.conventions, crossing)
        self._journal = journal
        self._stop = stop
        self._pace = pace
        self._audit = audit

    def run(self) -> Tally:
        """Send all that match and were not sent. Raises `ArchiveError`, `JournalError`, `AuditError`, `ServerError`.

        `tally` is right also then.
        """
        began = time.monotonic()
        for batch in self._batches():
            if self._pace and not self._pace.wait(len(batch)):
                break
            self._send(batch)
        self.tally.seconds = time.monotonic() - began
        self.tally.ended = "stopped" if self._stop.is_set() else self.tally.ended or "end"
        return self.tally

    def _batches(self) -> Iterator[list[Decision]]:
        batch: list[Decision] = []
        size = 0
        for decision in self._decisions():
            batch.append(decision)
            size += len(decision.letter.message.body)
            if len(batch) >= self._size() or size >= self._sender.max_bytes:
                yield batch
                batch, size = [], 0
        if batch and not self._stop.is_set():
            yield batch

    def _size(self) -> int:
        return self._plan.batch if self._pace is None else min(self._plan.batch, self._pace.group())

    def _decisions(self) -> Iterator[Decision]:
        """Yield what is to be sent, each message once, up to the limit."""
        sends = 0
        for letter, message in self._archive.letters():
            if self._stop.is_set():
                return
            if self._journal.has(letter):
                self._decider.sent_before(message)
                continue
            decision = self._decider.decide(message)
            if decision.fate not in _SENDS:
                self.tally.add([decision])
                continue
            if sends == self._plan.limit:
                self.tally.ended = "limit"
                return
            sends += 1
            yield decision

    def _send(self, batch: Sequence[Decision]) -> None:
        self._journal.sending([key(each.letter.message) for each in batch])
        if self._audit:
            self._audit.intend(batch, time.time())
        sent = self._sender.send([each.replacement for each in batch])
        told = list(zip(batch, sent.words, strict=True))
        # Counted before it is written down: what is certain stays so when the disk is full.
        for decision, word in told:
            self._count(decision, word)
        self._write_down(told)
        if sent.fault and not self._stop.is_set():
            raise sent.fault

    def _count(self, decision: Decision, word: Word) -> None:
        match word.outcome:
            case Outcome.CONFIRMED:
                self._decider.accepted(decision)
                self.tally.add([decision])
            case Outcome.REFUSED:
                self._decider.refused(decision, word.reason)
                self.tally.add([self._decider.decide(decision.letter.message)])
            case Outcome.IN_DOUBT:
                self._decider.unconfirmed(decision, word.reason)
                self.tally.add([self._decider.decide(decision.letter.message)])
            case Outcome.NOT_SENT:
                pass

    def _write_down(self, told: Sequence[tuple[Decision, Word]]) -> None:
        """Note the words, in both files also when one is full. What is in doubt stays noted as being sent."""
        letters: dict[Outcome, list[str]] = {outcome: [] for outcome in Outcome}
        for decision, word in told:
            letters[word.outcome].append(key(decision.letter.message))
        try:
            self._journal.sent(letters[Outcome.CONFIRMED])
            self._journal.unsent(letters[Outcome.REFUSED] + letters[Outcome.NOT_SENT])
        finally:
            self._tell_audit(told)

    def _tell_audit(self, told: Sequence[tuple[Decision, Word]]) -> None:
        if self._audit:
            now = time.time()
            for word in {word for _, word in told}:
                decisions = [decision for decision, its in told if its == word]
                self._audit.note(decisions, _RESULTS[word.outcome], now, word.reason)
