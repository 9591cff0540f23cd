"""Sending an archive back: each message once, as far as the journal tells."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from infertool.brokers.port import Broker
from infertool.deadletter import archive, summary
from infertool.deadletter.audit import Audit
from infertool.deadletter.decide import Decider, Decision, Fate, Plan
from infertool.deadletter.journal import Journal
from infertool.deadletter.letter import DeadLetter
from infertool.deadletter.pace import Pace
from infertool.deadletter.summary import Group
from infertool.deadletter.tally import Tally
from infertool.errors import ConnectionLostError, RefusedError
from infertool.message import Message

_LONGEST_LOSS_S: Final = 300.0
_AGAIN_S: Final = 1.0
_SENDS: Final = frozenset({Fate.REPLAY, Fate.PARK})
_MOST_BYTES: Final = 8_388_608

_Answers = queue.SimpleQueue[tuple[int, Exception | None]]


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


def look(path: Path, plan: Plan, journal: Journal) -> Look:
    """Read all of the archive, and say what a run would do. Raises `ArchiveError`: nothing of such a file is sent."""
    found = Look()
    found.groups = summary.group(_matching(path, plan, journal, found), ("stage", "error_type"))
    return found


def _matching(path: Path, plan: Plan, journal: Journal, found: Look) -> Iterator[DeadLetter]:
    decider = Decider(plan_for(path, plan))
    for message in _unlike(path):
        found.records += 1
        if journal.has(message.id):
            found.sent_before += 1
            continue
        decision = decider.decide(message)
        found.tally.add([decision])
        if decision.fate in _SENDS:
            yield decision.letter


class Refill:
    """One run. `tally` may be read from other threads while it goes on."""

    def __init__(
        self,
        broker: Broker,
        path: Path,
        plan: Plan,
        journal: Journal,
        *,
        stop: threading.Event,
        pace: Pace | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.tally = Tally()
        self._broker = broker
        self._path = path
        self._plan = plan_for(path, plan)
        self._decider = Decider(self._plan)
        self._journal = journal
        self._stop = stop
        self._pace = pace
        self._audit = audit

    def run(self) -> Tally:
        """Send all that match and were not sent. Raises `ArchiveError`, `JournalError`, `AuditError`, `ServerError`."""
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
            if len(batch) >= self._size() or size >= _MOST_BYTES:
                yield batch
                batch, size = [], 0
        if batch and not self._stop.is_set():
            yield batch

    def _size(self) -> int:
        return self._plan.batch if self._pace is None else min(self._plan.batch, self._pace.group())

    def _decisions(self) -> Iterator[Decision]:
        """Yield what is to be sent, each message once, up to the limit."""
        sends = 0
        for message in _unlike(self._path):
            if self._stop.is_set():
                return
            if self._journal.has(message.id):
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
        self._journal.sending([each.letter.message.id for each in batch])
        if self._audit:
            self._audit.write(batch, time.time())
        confirmed = self._confirmed(batch)
        self._journal.sent([each.letter.message.id for each in confirmed])
        self.tally.add(confirmed)
        done = {each.letter.message.id for each in confirmed}
        refused = [each for each in batch if each.letter.message.id not in done]
        if refused:
            self._journal.refused([each.letter.message.id for each in refused])
        if refused and self._audit:
            self._audit.undone(refused, time.time())

    def _confirmed(self, batch: Sequence[Decision]) -> list[Decision]:
        """Send until the broker has confirmed or refused each. Raises `ConnectionLostError` after five minutes."""
        open_ones, confirmed = list(batch), []
        deadline = time.monotonic() + _LONGEST_LOSS_S
        while open_ones:
            answers = self._answers(open_ones)
            confirmed += [each for each, error in zip(open_ones, answers, strict=True) if error is None]
            self._note_refusals(open_ones, answers)
            lost = [error for error in answers if isinstance(error, ConnectionLostError)]
            open_ones = [
                each for each, error in zip(open_ones, answers, strict=True) if isinstance(error, ConnectionLostError)
            ]
            if lost and (self._stop.wait(_AGAIN_S) or time.monotonic() > deadline):
                self._journal.sent([each.letter.message.id for each in confirmed])
                raise lost[0]
        return confirmed

    def _note_refusals(self, sent: Sequence[Decision], answers: Sequence[Exception | None]) -> None:
        for each, error in zip(sent, answers, strict=True):
            if isinstance(error, RefusedError):
                self._decider.refused(each, error.reason)
                self.tally.add([replace(each, fate=Fate.KEEP, why=f"the broker refused it: {error.reason}")])

    def _answers(self, batch: Sequence[Decision]) -> list[Exception | None]:
        """Send, and return the broker's word on each, in order. The adapter answers every send in the end."""
        answers: _Answers = queue.SimpleQueue()
        found: list[Exception | None] = [None] * len(batch)
        waiting = 0
        for number, each in enumerate(batch):
            try:
                self._broker.send(each.replacement, partial(_put, answers, number))
            except ConnectionLostError as error:
                found[number] = error
            else:
                waiting += 1
        for _ in range(waiting):
            number, answer = answers.get()
            found[number] = answer
        return found


def _put(answers: _Answers, number: int, error: Exception | None) -> None:
    answers.put((number, error))


def _unlike(path: Path) -> Iterator[Message]:
    """Yield each message of the archive once: a drain that was interrupted may have written some twice."""
    seen: set[str] = set()
    for batch in archive.read(path):
        for message in batch.messages:
            if message.id not in seen:
                seen.add(message.id)
                yield message
