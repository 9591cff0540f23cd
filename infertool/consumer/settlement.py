"""Settlement of deliveries: each is admitted once, then acked or moved to the dead letters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from infertool.brokers.partitioned import Partitioned
from infertool.brokers.port import Subscription
from infertool.consumer.attempt import DroppedEvent, Event, FailedEvent, Failure
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.delays import Delays
from infertool.consumer.in_flight import Admission, InFlight
from infertool.consumer.isolation import Suspects
from infertool.deadletters.delayed import Delay
from infertool.deadletters.ids import envelope_id
from infertool.message import Message
from infertool.telemetry import signals

# The age of one event in this time is reported: reading a timestamp parses all properties of the message. Seconds.
AGE_EVERY_S: Final = 0.01
_FULL = "Take them out with a JMS client, or raise consume.window"


class DeadLetterSink(Protocol):
    """Moves events to the dead-letter queue."""

    def dead_letter(self, failed: Sequence[FailedEvent]) -> None:
        """Queue events. Returns at once."""


class Settlement:
    """Admits the deliveries of `subscription` and settles their events. Thread-safe.

    `window` is the number of unsettled messages that the subscription delivers at most; it may grow.
    With `detailed` ages of events are reported; `delays` are the retry topics.
    """

    def __init__(
        self,
        subscription: Subscription,
        in_flight: InFlight,
        guard: CrashGuard,
        dead_letters: DeadLetterSink,
        window: int,
        observe: signals.Observe,
        *,
        detailed: bool = False,
        delays: Delays | None = None,
    ) -> None:
        self._delays = delays
        self._detailed = detailed
        self._next_age = 0.0
        self.subscription = subscription
        self._in_flight = in_flight
        self.revoked: Mapping[Event, None] = in_flight.revoked
        """See `InFlight`."""
        self._guard = guard
        self.suspects: Suspects = guard
        self._dead_letters = dead_letters
        self.window = window
        self._observe = observe

    def admit(self, messages: Sequence[Message]) -> list[Event]:
        """Take deliveries in and return the new events. A delivery of a known event is settled as that was."""
        admission = self._in_flight.admit(messages)
        left = [*admission.left, *admission.returned] if admission.returned else admission.left
        if received := len(messages) - len(left):
            redelivered = _redelivered(messages) - _redelivered(left)
            self._observe(signals.Received(received, redelivered))
            if redelivered:
                self._guard.look(admission.fresh)
        if admission.returned:
            self.give_back(admission.returned)
        if admission.confirmed:
            self.subscription.ack(admission.confirmed)
        if admission.in_progress or admission.confirmed or admission.failed:
            self._admit_again(admission)
        if self._delays:
            self._delays.restore(admission.fresh)
        return admission.fresh

    def delay(self, event: Event) -> Delay | None:
        """Return the retry topic in which an event waits next, if there is one."""
        return self._delays.after(event.message) if self._delays else None

    def open_events(self) -> int:
        """Return the number of events in progress."""
        return len(self._in_flight)

    def begin(self, event: Event) -> Failure | None:
        """Note that a redelivered event goes to the model, or return why it must not: it may have crashed a process."""
        return self._guard.begin(event)

    def defer(self, event: Event) -> None:
        """Note that an event waits for its model: a crash meanwhile does not count against it."""
        self._guard.end([event])

    @property
    def is_revoking(self) -> bool:
        """True while partitions go to other consumers: what has not begun is to be released."""
        return self._in_flight.is_revoking

    def is_leaving(self, event: Event) -> bool:
        """Return True if the partition of an event goes, or went, to another consumer."""
        return self._in_flight.is_leaving(event)

    def leave(self, partitions: frozenset[str]) -> None:
        """Take in nothing more of these partitions until they are assigned again."""
        self._in_flight.leave(partitions)

    def release(self, events: Iterable[Event]) -> None:
        """Give events back that have not begun: another consumer gets them."""
        released = self._in_flight.release(events)
        self._revoked(released)
        self.give_back([event.message for event in released])

    def revoke(self, partitions: frozenset[str]) -> None:
        """Settle no event of these partitions any more: another consumer has them."""
        self._revoked(self._in_flight.revoke(partitions))

    def owned(self, events: Sequence[Event]) -> list[Event]:
        """Return the events that are not revoked. The others are over."""
        return self._in_flight.owned(events)

    def _revoked(self, events: Sequence[Event]) -> None:
        if events:
            self._guard.end(events)
            self._observe(signals.Revoked(len(events)))

    def give_back(self, messages: Sequence[Message]) -> None:
        """Have the broker give messages to another consumer."""
        if messages and isinstance(self.subscription, Partitioned):
            self.subscription.release(messages)

    def ack(self, events: Sequence[Event]) -> None:
        """Acknowledge events whose results are confirmed."""
        events = self._ack(events)
        if not events:
            return
        now = time.monotonic()
        self._observe(signals.Succeeded([now - event.delivered_at for event in events]))
        if self._detailed and now >= self._next_age:
            self._next_age = now + AGE_EVERY_S
            if sent_ms := events[0].original.properties.timestamp_ms:
                self._observe(signals.Ages([time.time() - sent_ms / 1000]))

    def drop(self, dropped: Sequence[DroppedEvent]) -> None:
        """Acknowledge requests that nobody waits for any more."""
        stages = {each.event: each.stage for each in dropped}
        events = self._ack([each.event for each in dropped])
        now = time.monotonic()
        for event in events:
            self._observe(signals.Dropped(event.event_id, stages[event], now - event.delivered_at))

    def _ack(self, events: Sequence[Event]) -> Sequence[Event]:
        events = self._in_flight.confirmed(events)
        self.subscription.ack([event.message for event in events])
        self._guard.end(events)
        return events

    def dead_letter(self, failed: Sequence[FailedEvent]) -> None:
        """Have events moved to the dead letters; those that would lose their content there stay in their queue."""
        if self.revoked:
            owned = set(self.owned([each.event for each in failed]))
            failed = [each for each in failed if each.event in owned]
        hidden = [each.event for each in failed if each.event.message.hides_body]
        if hidden:
            kept = self._in_flight.keep(hidden)
            self._guard.end(hidden)
            if kept - len(hidden) < self.window <= kept:
                self._observe(
                    signals.Warned(f"{kept} messages that cannot be read fill the window: no others come. {_FULL}")
                )
        if moving := [each for each in failed if not each.event.message.hides_body]:
            self._dead_letters.dead_letter(moving)

    def _admit_again(self, admission: Admission) -> None:
        """Report redeliveries of known events, and move those again whose dead letter may not have arrived."""
        for event_id in (
            *(event.event_id for event in admission.in_progress),
            *(envelope_id(message) for message in admission.confirmed),
            *(failed.event.event_id for failed in admission.failed),
        ):
            self._observe(signals.DuplicateDelivery(event_id))
        if admission.failed:
            self._dead_letters.dead_letter(admission.failed)


def _redelivered(messages: Sequence[Message]) -> int:
    return sum(message.redelivered for message in messages)
