"""The events in flight: those in progress, and the newest of those that are finished; and their intake.

A delivery can be settled only on the connection that made it. Deliveries of one connection are different events,
whatever their ids, but for those that come again after a refused move. After a reconnect the broker redelivers what was
not acked. A redelivery is recognised by its identity: an event in progress takes it over, a finished event is acked
again, and neither is published twice.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from infertool.brokers.port import DeliversOnReader, Subscription
from infertool.consumer.attempt import Event, FailedEvent
from infertool.deadletters.ids import envelope_id
from infertool.message import Identity, Message


@dataclass(frozen=True, slots=True)
class Admission:
    """A batch of deliveries, sorted by what is known of their events.

    Those `left` are not taken in: the limit is reached, or their connection is over and the broker redelivers them.
    """

    fresh: list[Event] = field(default_factory=list)
    in_progress: list[Event] = field(default_factory=list)
    confirmed: list[Message] = field(default_factory=list)
    failed: list[FailedEvent] = field(default_factory=list)
    left: list[Message] = field(default_factory=list)


class _Finished(Struct, eq=False, gc=False):
    """An event that was closed. `failed` is None when the result was confirmed; else its dead letter may have arrived.

    It is `reopened` when that event came back to be moved again, `forgotten` when the memory was too small for it.
    """

    identity: Identity
    failed: FailedEvent | None
    reopened: bool = False
    forgotten: bool = False


class InFlight:
    """Thread-safe. Remembers the last `memory` finished events, by which it recognises redeliveries.

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
        # Postponed events that the memory does not hold any more: the broker may have committed their dead letters.
        self._forgotten = 0
        self._epoch = 0
        # What earlier connections delivered, and the living one has not yet delivered again.
        self._awaited: dict[Identity, list[Event | _Finished]] = {}
        # Those of the living connection whose dead letters are being moved, or were refused: some adapters give them
        # back on it.
        self._moved: dict[Identity, list[Event | _Finished]] = {}

    def admit(self, messages: Iterable[Message]) -> Admission:
        """Take in deliveries; new ones are open until `confirmed`, `dead_lettered`, `keep` or `postponed`."""
        admission = Admission()
        delivered_at, received_at = time.monotonic(), time.time()
        with self._lock:
            for message in messages:
                if message.epoch != self._epoch and not self._begin(message.epoch):
                    admission.left.append(message)
                elif (self._awaited or self._moved) and (known := self._known(message)):
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
        """Admit no new event from now on."""
        with self._lock:
            self._most = 0

    def _begin(self, epoch: int) -> bool:
        """Expect the deliveries of earlier connections again. Returns False if `epoch` is an earlier one itself."""
        if epoch < self._epoch:
            return False
        self._epoch = epoch
        self._awaited, self._moved = {}, {}
        for finished in self._finished:
            if not finished.reopened:
                self._awaited.setdefault(finished.identity, []).append(finished)
        for event in (*self._open, *self._kept):
            self._awaited.setdefault(event.message.identity, []).append(event)
        return True

    def _known(self, message: Message) -> Event | _Finished | None:
        if self._awaited and (found := _pop(self._awaited, message.identity)):
            return found
        return _pop(self._moved, message.identity) if self._moved and message.redelivered else None

    def _admit_again(self, known: Event | _Finished, message: Message, admission: Admission) -> None:
        if isinstance(known, Event):
            known.message = message
            admission.in_progress.append(known)
        elif known.failed is not None:
            failed, known.failed, known.reopened = known.failed, None, True
            self._forgotten -= known.forgotten
            failed.event.message = message
            self._open[failed.event] = None
            admission.failed.append(failed)
        else:
            admission.confirmed.append(message)

    def confirmed(self, events: Sequence[Event]) -> list[Message]:
        """Close events whose results are confirmed; return their latest deliveries, to be acked."""
        with self._lock:
            messages = [event.message for event in events]
            for event in events:
                self._finish(event, None)
            self._notify_if_empty()
            return messages

    def moving(self, events: Sequence[Event]) -> None:
        """Note events whose dead letters are about to be moved: each may come again before the refusal is known."""
        with self._lock:
            for event in events:
                if event.message.epoch == self._epoch:
                    self._moved.setdefault(event.message.identity, []).append(event)

    def dead_lettered(self, events: Sequence[Event]) -> None:
        """Close events whose dead letters the broker has committed."""
        with self._lock:
            for event in events:
                self._open.pop(event, None)
                self._end_move(event)
                if event.message.epoch != self._epoch:
                    self._replace_awaited(event, None)
            self._notify_if_empty()

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
            self._end_move(failed.event)
            if failed.event.message is not tried:
                return True
            finished = self._finish(failed.event, failed)
            if tried.epoch == self._epoch:
                self._moved.setdefault(finished.identity, []).append(finished)
            self._notify_if_empty()
            return False

    def _end_move(self, event: Event) -> None:
        known = self._moved.get(event.message.identity, [])
        if event in known:
            known.remove(event)
            if not known:
                del self._moved[event.message.identity]

    def _finish(self, event: Event, failed: FailedEvent | None) -> _Finished:
        message = event.message
        finished = _Finished(message.identity, failed)
        self._open.pop(event, None)
        if len(self._finished) == self._finished.maxlen and self._finished[0].failed is not None:
            self._finished[0].forgotten = True
            self._forgotten += 1
        self._finished.append(finished)
        if message.epoch != self._epoch:
            self._replace_awaited(event, finished)
        return finished

    def _replace_awaited(self, event: Event, finished: _Finished | None) -> None:
        """Expect `finished`, or nothing, in place of an event that was closed after its connection was lost."""
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


def _pop(known: dict[Identity, list[Event | _Finished]], identity: Identity) -> Event | _Finished | None:
    """Take the newest: of several equal messages the broker has most likely removed those that were acked first."""
    events = known.get(identity)
    if events is None:
        return None
    found = events.pop()
    if not events:
        del known[identity]
    return found


# Longest wait for messages, after which the thread checks whether it should end. Seconds.
POLL_S = 0.1

TakeIn = Callable[[list[Message]], None]


class Intake:
    """Passes the messages of `subscription` on, at most `window` at a time.

    `run` may call the model in the calling thread, which has to be the broker's reader; `submit` only queues events.
    """

    def __init__(self, subscription: Subscription, window: int, *, run: TakeIn, submit: TakeIn) -> None:
        self._subscription = subscription
        self._window = window
        self._run = run
        self._submit = submit
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Messages that came before this go to `submit`."""
        if isinstance(self._subscription, DeliversOnReader):
            self._submit(self._subscription.deliver_to(self._run))
            return
        self._thread = threading.Thread(target=self._receive, name="intake", daemon=True)
        self._thread.start()

    def hand_off_reader(self) -> None:
        """Have another thread read from the broker if the one that does is in `run`."""
        if isinstance(self._subscription, DeliversOnReader):
            self._subscription.hand_off_reader()

    def stop(self, timeout_s: float) -> None:
        """End the thread, if there is one. A broker that delivers on its reader does so until it is closed."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _receive(self) -> None:
        while not self._stopped.is_set():
            if messages := self._subscription.receive(self._window, POLL_S):
                self._submit(messages)
