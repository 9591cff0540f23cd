"""Settlement of deliveries: each is admitted once, then acked or moved to the dead letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from infertool.brokers.port import Subscription
from infertool.consumer.attempt import DroppedEvent, Event, FailedEvent, Failure
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.in_flight import Admission, InFlight
from infertool.deadletters.ids import envelope_id
from infertool.message import Message
from infertool.telemetry import signals

_FULL = "Take them out with a JMS client, or raise consume.window"


class DeadLetterSink(Protocol):
    """Moves events to the dead-letter queue."""

    def dead_letter(self, failed: Sequence[FailedEvent]) -> None:
        """Queue events. Returns at once."""


class Settlement:
    """Admits the deliveries of `subscription` and settles their events. Thread-safe.

    `window` is the number of unsettled messages that the subscription delivers at most.
    With `detailed` ages of events are reported.
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
    ) -> None:
        self._detailed = detailed
        self.subscription = subscription
        self._in_flight = in_flight
        self._guard = guard
        self._dead_letters = dead_letters
        self.window = window
        self._observe = observe

    def admit(self, messages: Sequence[Message]) -> list[Event]:
        """Take deliveries in and return the new events. A delivery of a known event is settled as that was."""
        admission = self._in_flight.admit(messages)
        if received := len(messages) - len(admission.left):
            redelivered = _redelivered(messages) - _redelivered(admission.left)
            self._observe(signals.Received(received, redelivered))
        if admission.confirmed:
            self.subscription.ack(admission.confirmed)
        if admission.in_progress or admission.confirmed or admission.failed:
            self._admit_again(admission)
        return admission.fresh

    def begin(self, event: Event) -> Failure | None:
        """Note that a redelivered event goes to the model, or return why it must not: it may have crashed a process."""
        return self._guard.begin(event)

    def defer(self, event: Event) -> None:
        """Note that an event waits for its model: a crash meanwhile does not count against it."""
        self._guard.end([event])

    def ack(self, events: Sequence[Event]) -> None:
        """Acknowledge events whose results are confirmed."""
        self.subscription.ack(self._in_flight.confirmed(events))
        self._guard.end(events)
        now = time.monotonic()
        self._observe(signals.Succeeded([now - event.delivered_at for event in events]))
        if self._detailed and (sent_ms := events[0].message.properties.timestamp_ms):
            self._observe(signals.Ages([time.time() - sent_ms / 1000]))

    def drop(self, dropped: Sequence[DroppedEvent]) -> None:
        """Acknowledge requests that nobody waits for any more."""
        events = [each.event for each in dropped]
        self.subscription.ack(self._in_flight.confirmed(events))
        self._guard.end(events)
        now = time.monotonic()
        for each in dropped:
            self._observe(signals.Dropped(each.event.event_id, each.stage, now - each.event.delivered_at))

    def dead_letter(self, failed: Sequence[FailedEvent]) -> None:
        """Have events moved to the dead letters; those that would lose their content there stay in their queue."""
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
