"""The book of events this process holds or has finished, by broker message id.

After a reconnect the broker delivers again what was not acked. The book knows those: an event in work takes over the
new delivery, a finished one is acked again, and neither is pushed twice.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from infertool.message import Message
from infertool.pipeline.decode import envelope_id
from infertool.pipeline.event import Dead, Event


@dataclass(frozen=True, slots=True)
class Admission:
    """A batch of deliveries, sorted by what the book knows of them. Those `left` are not taken in."""

    fresh: list[Event] = field(default_factory=list)
    in_work: list[Event] = field(default_factory=list)
    confirmed: list[Message] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    left: list[Message] = field(default_factory=list)


class Book:
    """Thread-safe. Remembers the last `memory` finished events; the broker cannot redeliver more than its window.

    Takes in no more than `most` events, of which `admitted` counts those so far.
    """

    def __init__(self, memory: int, most: int | None = None) -> None:
        self._memory = memory
        self._most = sys.maxsize if most is None else most
        self.admitted = 0
        self._lock = threading.Condition()
        self._open: dict[str, Event] = {}
        # None when the result was confirmed; the dead event when its dead letter may not have arrived.
        self._finished: OrderedDict[str, Dead | None] = OrderedDict()

    def admit(self, messages: Iterable[Message]) -> Admission:
        """Take in deliveries; new ones are open until `confirmed`, `buried` or `postponed`."""
        admission = Admission()
        delivered_at, received_at = time.monotonic(), time.time()
        with self._lock:
            for message in messages:
                if message.id in self._open or message.id in self._finished:
                    self._admit_again(message, admission)
                elif self.admitted + len(admission.fresh) >= self._most:
                    admission.left.append(message)
                else:
                    event = Event(message, envelope_id(message), delivered_at=delivered_at, received_at=received_at)
                    self._open[message.id] = event
                    admission.fresh.append(event)
            self.admitted += len(admission.fresh)
            if self.admitted >= self._most:
                self._lock.notify_all()
        return admission

    def close(self) -> None:
        """Take in nothing new any more."""
        with self._lock:
            self._most = 0

    def _admit_again(self, message: Message, admission: Admission) -> None:
        event = self._open.get(message.id)
        if event is not None:
            event.message = message
            admission.in_work.append(event)
        elif (dead := self._finished[message.id]) is not None:
            del self._finished[message.id]
            dead.event.message = message
            self._open[message.id] = dead.event
            admission.dead.append(dead)
        else:
            admission.confirmed.append(message)

    def confirmed(self, events: Sequence[Event]) -> list[Message]:
        """Close events whose results are confirmed; return their latest deliveries, to be acked."""
        with self._lock:
            messages = [event.message for event in events]
            for message in messages:
                self._open.pop(message.id, None)
                self._finished[message.id] = None
            self._tell_if_empty()
            self._forget()
            return messages

    def buried(self, events: Sequence[Event]) -> None:
        """Close events whose dead letters the broker has committed."""
        with self._lock:
            for event in events:
                self._open.pop(event.message.id, None)
            self._tell_if_empty()

    def postponed(self, dead: Dead, tried: Message) -> bool:
        """Close an event whose move with delivery `tried` did not work out; True if a newer delivery is here to move.

        Otherwise the broker delivers it again, and `admit` finds it dead.
        """
        with self._lock:
            if dead.event.message is not tried:
                return True
            self._open.pop(tried.id, None)
            self._tell_if_empty()
            self._finished[tried.id] = dead
            self._forget()
            return False

    def _tell_if_empty(self) -> None:
        if not self._open:
            self._lock.notify_all()

    def _forget(self) -> None:
        while len(self._finished) > self._memory:
            self._finished.popitem(last=False)

    def __len__(self) -> int:
        """Return how many events are open."""
        return len(self._open)

    def unsettled(self) -> int:
        """Return how many events are open or postponed: what the broker still has, and will deliver again."""
        with self._lock:
            return len(self._open) + sum(dead is not None for dead in self._finished.values())

    def wait_full(self, timeout_s: float) -> bool:
        """Wait until as many events as may be were taken in; False if `timeout_s` ran out."""
        with self._lock:
            return self._lock.wait_for(lambda: self.admitted >= self._most, timeout_s)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no event is open; False if `timeout_s` ran out."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._open, timeout_s)
