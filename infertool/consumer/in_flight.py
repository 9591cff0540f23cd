"""The book of events this process holds or has finished.

A delivery is settled on the connection that made it, or never. Deliveries of one connection are always events of their
own, whatever their ids. After a reconnect the broker delivers again what was not acked. The book knows those by their
identity: an event in work takes over the new delivery, a finished one is acked again, and neither is pushed twice.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from infertool.consumer.event import Event, FailedEvent
from infertool.deadletters.ids import envelope_id
from infertool.message import Identity, Message


@dataclass(frozen=True, slots=True)
class Admission:
    """A batch of deliveries, sorted by what the book knows of them.

    Those `left` are not taken in: there were enough, or their connection is over and the broker delivers them again.
    """

    fresh: list[Event] = field(default_factory=list)
    in_progress: list[Event] = field(default_factory=list)
    confirmed: list[Message] = field(default_factory=list)
    failed: list[FailedEvent] = field(default_factory=list)
    left: list[Message] = field(default_factory=list)


class _Finished(Struct, eq=False, gc=False):
    """An event that was closed. `dead` is None when the result was confirmed; else its dead letter may have arrived.

    It is `reopened` when that event came back to be moved again.
    """

    identity: Identity
    dead: FailedEvent | None
    reopened: bool = False


class InFlight:
    """Thread-safe. Remembers the last `memory` finished events; the broker cannot redeliver more than its window.

    Takes in no more than `most` events, of which `admitted` counts those so far. At any time every delivery of the
    living connection is open, kept, settled, or was left.
    """

    def __init__(self, memory: int, most: int | None = None) -> None:
        self._most = sys.maxsize if most is None else most
        self.admitted = 0
        self._lock = threading.Condition()
        self._open: dict[Event, None] = {}
        self._kept: dict[Event, None] = {}
        self._finished: deque[_Finished] = deque(maxlen=memory)
        self._epoch = 0
        # What earlier connections delivered, and the living one has not yet delivered again.
        self._awaited: dict[Identity, list[Event | _Finished]] = {}

    def admit(self, messages: Iterable[Message]) -> Admission:
        """Take in deliveries; new ones are open until `confirmed`, `buried`, `keep` or `postponed`."""
        admission = Admission()
        delivered_at, received_at = time.monotonic(), time.time()
        with self._lock:
            for message in messages:
                if message.epoch != self._epoch and not self._begin(message.epoch):
                    admission.left.append(message)
                elif self._awaited and (known := self._take_awaited(message.identity)):
                    self._admit_again(known, message, admission)
                elif self.admitted + len(admission.fresh) >= self._most:
                    admission.left.append(message)
                else:
                    event = Event(message, envelope_id(message), delivered_at=delivered_at, received_at=received_at)
                    self._open[event] = None
                    admission.fresh.append(event)
            self.admitted += len(admission.fresh)
            if self.admitted >= self._most:
                self._lock.notify_all()
        return admission

    def close(self) -> None:
        """Take in nothing new any more."""
        with self._lock:
            self._most = 0

    def _begin(self, epoch: int) -> bool:
        """Expect on a new connection what the earlier ones delivered; False if `epoch` is itself an earlier one."""
        if epoch < self._epoch:
            return False
        self._epoch = epoch
        self._awaited = {}
        for finished in self._finished:
            if not finished.reopened:
                self._awaited.setdefault(finished.identity, []).append(finished)
        for event in (*self._open, *self._kept):
            self._awaited.setdefault(event.message.identity, []).append(event)
        return True

    def _take_awaited(self, identity: Identity) -> Event | _Finished | None:
        known = self._awaited.get(identity)
        if known is None:
            return None
        # The newest: with several alike, the broker has most likely forgotten those that were acked first.
        found = known.pop()
        if not known:
            del self._awaited[identity]
        return found

    def _admit_again(self, known: Event | _Finished, message: Message, admission: Admission) -> None:
        if isinstance(known, Event):
            known.message = message
            admission.in_progress.append(known)
        elif known.dead is not None:
            dead, known.dead, known.reopened = known.dead, None, True
            dead.event.message = message
            self._open[dead.event] = None
            admission.failed.append(dead)
        else:
            admission.confirmed.append(message)

    def confirmed(self, events: Sequence[Event]) -> list[Message]:
        """Close events whose results are confirmed; return their latest deliveries, to be acked."""
        with self._lock:
            messages = [event.message for event in events]
            self._finish(events, None)
            self._tell_if_empty()
            return messages

    def dead_lettered(self, events: Sequence[Event]) -> None:
        """Close events whose dead letters the broker has committed."""
        with self._lock:
            for event in events:
                self._open.pop(event, None)
                if event.message.epoch != self._epoch:
                    self._replace_awaited(event, None)
            self._tell_if_empty()

    def keep(self, events: Sequence[Event]) -> int:
        """Close events that stay unsettled to the end of the run. Return how many have been kept so far."""
        with self._lock:
            for event in events:
                self._open.pop(event, None)
                self._kept[event] = None
            self._tell_if_empty()
            return len(self._kept)

    def postponed(self, dead: FailedEvent, tried: Message) -> bool:
        """Close an event whose move with delivery `tried` did not work out; True if a newer delivery is here to move.

        Otherwise the broker delivers it again, and `admit` finds it dead.
        """
        with self._lock:
            if dead.event.message is not tried:
                return True
            self._finish([dead.event], dead)
            self._tell_if_empty()
            return False

    def _finish(self, events: Sequence[Event], dead: FailedEvent | None) -> None:
        for event in events:
            message = event.message
            finished = _Finished(message.identity, dead)
            self._open.pop(event, None)
            self._finished.append(finished)
            if message.epoch != self._epoch:
                self._replace_awaited(event, finished)

    def _replace_awaited(self, event: Event, finished: _Finished | None) -> None:
        """Expect the redelivery of an event that was closed after its connection was lost, or no longer expect it."""
        identity = event.message.identity
        known = self._awaited.get(identity, [])
        if event in known:
            known.remove(event)
        if finished:
            known.append(finished)
        if known:
            self._awaited[identity] = known
        else:
            self._awaited.pop(identity, None)

    def _tell_if_empty(self) -> None:
        if not self._open:
            self._lock.notify_all()

    def __len__(self) -> int:
        """Return how many events are open."""
        return len(self._open)

    def unsettled(self) -> int:
        """Return how many events are open, kept or postponed: what the broker still has, and will deliver again."""
        with self._lock:
            return len(self._open) + len(self._kept) + self._postponed()

    def _postponed(self) -> int:
        return sum(finished.dead is not None for finished in self._finished)

    def wait_full(self, timeout_s: float) -> bool:
        """Wait until as many events as may be were taken in; False if `timeout_s` ran out."""
        with self._lock:
            return self._lock.wait_for(lambda: self.admitted >= self._most, timeout_s)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no event is open or postponed; False if `timeout_s` ran out."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._open and not self._postponed(), timeout_s)
