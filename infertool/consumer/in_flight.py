"""The events in flight: those in progress, and the newest of those that are finished; and their intake.

A delivery can be settled only on the connection that made it. Deliveries of one connection are different events,
whatever their ids, but for those that come again after a refused move. After a reconnect the broker redelivers what was
not acked. A redelivery is recognised by its identity: an event in progress takes it over, a finished event is acked
again, and neither is published twice.

Where a queue has partitions, all of this holds for the assignments of each partition. The events of one that goes to
another consumer are revoked: nothing is settled of them, unless the partition comes back.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from infertool.consumer.attempt import Event, FailedEvent
from infertool.consumer.partition import Finished, Partition
from infertool.deadletters.ids import envelope_id
from infertool.message import Message


@dataclass(frozen=True, slots=True)
class Admission:
    """A batch of deliveries, sorted by what is known of their events.

    Those `left` are not taken in: the limit is reached, or their connection is over and the broker redelivers them.
    Those `returned` are not either: their partition goes to another consumer. The events `regained` are in progress,
    and were revoked before.
    """

    fresh: list[Event] = field(default_factory=list)
    in_progress: list[Event] = field(default_factory=list)
    regained: list[Event] = field(default_factory=list)
    confirmed: list[Message] = field(default_factory=list)
    failed: list[FailedEvent] = field(default_factory=list)
    left: list[Message] = field(default_factory=list)
    returned: list[Message] = field(default_factory=list)


class InFlight:
    """Thread-safe. Remembers the last `memory` finished events, by which it recognises redeliveries.

    Takes in no more than `most` events, of which `admitted` counts those so far. At any time every delivery of the
    living connection is open, kept, settled, or was left.
    """

    def __init__(self, memory: int, most: int | None = None) -> None:
        self._most = sys.maxsize if most is None else most
        self.admitted = 0
        self._leaving: frozenset[str] = frozenset()
        self._lock = threading.Condition()
        self._open: dict[Event, None] = {}
        self._kept: dict[Event, None] = {}
        self.revoked: dict[Event, None] = {}
        """In progress, of partitions that other consumers have: what comes of them counts only if they come back."""
        self._memory = memory
        self._finished: deque[Finished] = deque(maxlen=memory)
        # Postponed events that the memory does not hold any more: the broker may have committed their dead letters.
        self._forgotten = 0
        # The partition of the newest delivery, and all by name.
        self._newest = Partition("")
        self._partitions = {"": self._newest}

    def admit(self, messages: Iterable[Message]) -> Admission:
        """Take in deliveries; new ones are open until `confirmed`, `dead_lettered`, `keep` or `postponed`."""
        admission = Admission()
        fresh = admission.fresh
        delivered_at, received_at = time.monotonic(), time.time()
        with self._lock:
            partition, room = self._newest, self._most - self.admitted
            for message in messages:
                if message.partition != partition.name:
                    partition = self._newest = self._partition(message.partition)
                if message.epoch != partition.admitted and not self._begin(partition, message.epoch):
                    (admission.returned if message.epoch == partition.left else admission.left).append(message)
                elif (partition.awaited or partition.moved) and (known := partition.known(message)):
                    self._admit_again(known, message, admission)
                elif len(fresh) >= room:
                    admission.left.append(message)
                else:
                    event = Event(message, envelope_id(message), delivered_at=delivered_at, received_at=received_at)
                    self._open[event] = None
                    fresh.append(event)
            self.admitted += len(fresh)
            if self.admitted >= self._most:
                self._lock.notify_all()
        return admission

    def close(self) -> None:
        """Admit no new event from now on."""
        with self._lock:
            self._most = 0

    def _partition(self, name: str) -> Partition:
        found = self._partitions.get(name)
        if found is None:
            found = self._partitions[name] = Partition(name)
        return found

    def _begin(self, partition: Partition, epoch: int) -> bool:
        return partition.begin(epoch, self._finished, chain(self._open, self._kept, self.revoked))

    def _admit_again(self, known: Event | Finished, message: Message, admission: Admission) -> None:
        if isinstance(known, Event):
            known.message = message
            if known in self.revoked:
                del self.revoked[known]
                self._open[known] = None
                admission.regained.append(known)
            else:
                admission.in_progress.append(known)
        elif known.failed is not None:
            failed, known.failed, known.reopened = known.failed, None, True
            self._forgotten -= known.forgotten
            failed.event.message = message
            self._open[failed.event] = None
            admission.failed.append(failed)
        else:
            admission.confirmed.append(message)

    @property
    def is_revoking(self) -> bool:
        """True from `leave` to `revoke`."""
        return bool(self._leaving)

    def leave(self, partitions: frozenset[str]) -> None:
        """Take in nothing more of `partitions`, which go to another consumer, until they are assigned again."""
        with self._lock:
            self._leaving |= partitions
            for name in partitions:
                self._partition(name).leave()

    def is_leaving(self, event: Event) -> bool:
        """Return True if the partition of an event goes, or went, to another consumer."""
        message = event.message
        return message.epoch <= self._partitions[message.partition].left

    def release(self, events: Iterable[Event]) -> list[Event]:
        """Forget events that have not begun. Return those that were open: others were revoked before.

        Nobody has what was released: one that stayed among the revoked would never end if its partition came back.
        """
        with self._lock:
            known = [event for event in events if event in self._open or event in self.revoked]
            released = [event for event in known if event in self._open]
            for event in known:
                self._forget(event)
            self._notify_if_empty()
            return released

    def revoke(self, partitions: frozenset[str]) -> list[Event]:
        """Close all events of `partitions`, which another consumer has now; return them.

        One in progress is open again if its partition comes back before it ends.
        """
        self.leave(partitions)
        with self._lock:
            self._leaving -= partitions
            cut_off = [event for event in self._open if event.message.partition in partitions]
            for event in cut_off:
                del self._open[event]
                self.revoked[event] = None
                self._partition(event.message.partition).end_move(event)
            kept = [event for event in self._kept if event.message.partition in partitions]
            for event in kept:
                del self._kept[event]
            postponed = [each for each in self._finished if each.failed and each.partition in partitions]
            events = [*cut_off, *kept, *(each.failed.event for each in postponed if each.failed)]
            for finished in postponed:
                finished.failed, finished.reopened = None, True
            self._lock.notify_all()
            return events

    def owned(self, events: Sequence[Event]) -> list[Event]:
        """Return the events that are not revoked; forget the others."""
        with self._lock:
            gone = {event for event in events if event in self.revoked}
            for event in gone:
                self._forget(event)
            return [event for event in events if event not in gone]

    def _forget(self, event: Event) -> None:
        self._open.pop(event, None)
        self.revoked.pop(event, None)
        self._partition(event.message.partition).replace_awaited(event, None)

    def confirmed(self, events: Sequence[Event]) -> Sequence[Event]:
        """Close events whose results are confirmed; return those of them that are ours to settle.

        One that is revoked is known as confirmed if it comes back.
        """
        with self._lock:
            ours = [event for event in events if event not in self.revoked] if self.revoked else events
            self._finish(events, None)
            self._notify_if_empty()
            return ours

    def moving(self, events: Sequence[Event]) -> None:
        """Note events whose dead letters are about to be moved: each may come again before the refusal is known."""
        with self._lock:
            for event in events:
                self._partition(event.message.partition).expect_moved(event, event.message)

    def dead_lettered(self, events: Sequence[Event]) -> Sequence[Event]:
        """Close events whose dead letters the broker has committed; return those that were not revoked meanwhile."""
        with self._lock:
            ours = [event for event in events if event not in self.revoked] if self.revoked else events
            for event in events:
                self._partition(event.message.partition).end_move(event)
                self._forget(event)
            self._notify_if_empty()
            return ours

    def keep(self, events: Sequence[Event]) -> int:
        """Close events that stay unsettled to the end of the run. Return the number of kept events."""
        with self._lock:
            for event in events:
                self._open.pop(event, None)
                self._kept[event] = None
            self._notify_if_empty()
            return len(self._kept)

    def postponed(self, failed: FailedEvent, tried: Message) -> bool:
        """Release an event whose dead-letter move with delivery `tried` failed.

        Returns True if it was redelivered meanwhile and can be moved again. Otherwise the broker redelivers it, and
        `admit` returns it among the failed.
        """
        with self._lock:
            event = failed.event
            partition = self._partition(event.message.partition)
            partition.end_move(event)
            if event.message is not tried:
                return True
            if event in self.revoked:
                self._forget(event)
                return False
            [finished] = self._finish([event], failed)
            partition.expect_moved(finished, tried)
            self._notify_if_empty()
            return False

    def _finish(self, events: Sequence[Event], failed: FailedEvent | None) -> list[Finished]:
        open_events, remembered, partition = self._open, self._finished, self._newest
        closed: list[Finished] = []
        for event in events:
            message = event.message
            name = message.partition
            if name != partition.name:
                partition = self._partitions[name]
            finished = Finished(message.identity, failed, name)
            open_events.pop(event, None)
            if self.revoked:
                self.revoked.pop(event, None)
            if len(remembered) == self._memory and remembered[0].failed is not None:
                remembered[0].forgotten = True
                self._forgotten += 1
            remembered.append(finished)
            if message.epoch != partition.epoch:
                partition.replace_awaited(event, finished)
            closed.append(finished)
        return closed

    def _notify_if_empty(self) -> None:
        if not self._open:
            self._lock.notify_all()

    def __len__(self) -> int:
        """Return the number of open events."""
        return len(self._open)

    def unsettled(self) -> int:
        """Return the number of open, kept and postponed events.

        The broker redelivers them; of those that were postponed it may have the dead letters already.
        """
        with self._lock:
            return len(self._open) + len(self._kept) + self._postponed() + self._forgotten

    def _postponed(self) -> int:
        return sum(finished.failed is not None for finished in self._finished)

    def wait_full(self, timeout_s: float) -> bool:
        """Wait until the limit of admitted events is reached. Returns False if `timeout_s` ran out."""
        with self._lock:
            return self._lock.wait_for(lambda: self.admitted >= self._most, timeout_s)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no event is open or postponed. Returns False if `timeout_s` ran out."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._open and not self._postponed(), timeout_s)
