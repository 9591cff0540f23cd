"""What follows an outcome: retry it, push it, acknowledge it, or bury it. The settling rules live here.

A success is acked once its push is confirmed. A failure is reported first and buried once the report is confirmed, so
a dead letter without an alert cannot happen; an alert may come twice, like everything at-least-once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from infertool.brokers.port import Subscription
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.delivery import Publisher
from infertool.consumer.documents import Documents, UnencodableError, unencodable
from infertool.consumer.event import Event, FailedEvent, Failure, Outcome, iso
from infertool.consumer.in_flight import Admission, InFlight
from infertool.consumer.push_batches import PushBatches, members
from infertool.consumer.retry import HeldAlerts, RetryQueue
from infertool.deadletters.ids import envelope_id
from infertool.models.port import Cached
from infertool.net.backoff import FullJitter
from infertool.phoenix.delivery import Push, PushResult
from infertool.phoenix.push import DeliveryClosedError, Pending
from infertool.telemetry import signals as o

RESULT_EVENT = "new_result"
FAILURE_EVENT = "inference_failed"
_FULL = "Take them out with a JMS client, or raise consume.window"


class Executor(Protocol):
    """Where an event goes to be tried again."""

    def submit(self, events: Sequence[Event]) -> None:
        """Queue events."""


class DeadLetterSink(Protocol):
    """Where an event goes to become a dead letter."""

    def dead_letter(self, dead: Sequence[FailedEvent]) -> None:
        """Queue events."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How often and how patiently an event is tried, and how many events can be open."""

    max_attempts: int
    max_refusals: int
    backoff: FullJitter
    window: int = sys.maxsize


class Router:
    """Connects executor, publisher and settlement. The collaborators are set by the consumer that owns them."""

    def __init__(
        self,
        rules: Rules,
        documents: Documents,
        batches: PushBatches,
        in_flight: InFlight,
        guard: CrashGuard,
        observe: o.Observe,
    ) -> None:
        self._rules = rules
        self._documents = documents
        self._batches = batches
        self._in_flight = in_flight
        self._guard = guard
        self._observe = observe
        self._held_alerts = HeldAlerts(lambda text: observe(o.Warned(text)))
        self.retries = RetryQueue()
        self.executor: Executor
        self.publisher: Publisher
        self.dead_letter_writer: DeadLetterSink
        self.subscription: Subscription

    def held_alerts(self) -> Pending:
        """Return how many alerts Phoenix does not take; they are pushed again later."""
        return self._held_alerts.pending()

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes from a worker thread."""
        pushes: list[Push] = []
        dead: list[FailedEvent] = []
        times: list[float] = []
        now = time.time()
        hits = 0
        for outcome in outcomes:
            failure = outcome.failure
            if failure is None:
                times.append(outcome.processing_s)
                hits += isinstance(outcome.prediction, Cached)
                failure = self._result(outcome, now, pushes)
            if failure is not None and not self._retry(outcome.event, failure):
                dead.append(FailedEvent(outcome.event, failure))
        if times:
            self._observe(o.Predicted(times))
        if hits:
            self._observe(o.CacheHit(hits))
        self._push(pushes, dead)

    def _result(self, outcome: Outcome, now: float, pushes: list[Push]) -> Failure | None:
        event = outcome.event
        try:
            document = self._documents.result(event, outcome.prediction, outcome.processing_s, now)
        except UnencodableError as error:
            return unencodable(error)
        pushes.append(Push(RESULT_EVENT, (event.event_id,), document, event))
        return None

    def _retry(self, event: Event, failure: Failure) -> bool:
        if failure.hold_s is not None:
            self._hold(event, failure.hold_s, failure.error)
            return True
        event.first_failed_at = event.first_failed_at or iso(time.time())
        if not failure.retryable or event.attempts >= self._rules.max_attempts:
            return False
        delay_s = self._rules.backoff.wait(event.attempts)
        self._observe(o.Retried(event.event_id, event.attempts, delay_s, failure.error, failure.traceback))
        self.retries.after(delay_s, lambda: self.executor.submit([event]))
        return True

    def _hold(self, event: Event, hold_s: float, error: str) -> None:
        """Wait for the model without counting the try; a process that dies meanwhile did not die of this event."""
        event.attempts -= 1
        self._guard.end([event])
        self._observe(o.Deferred(event.event_id, hold_s, error))
        self.retries.after(hold_s, lambda: self.executor.submit([event]))

    def _alert(self, dead: FailedEvent) -> Push:
        event, failure = dead.event, dead.failure
        event.first_failed_at = event.first_failed_at or iso(time.time())
        why = (failure.stage, failure.error_type, failure.error)
        self._observe(o.Failed(event.event_id, *why, event.attempts, failure.traceback))
        document, minimal = self._documents.failure(event, failure), self._documents.minimal(event, failure)
        return Push(FAILURE_EVENT, (event.event_id,), document, dead, minimal)

    def _push(self, results: list[Push], dead: Sequence[FailedEvent]) -> None:
        alerts = [self._alert(each) for each in dead]
        if results or alerts:
            self._observe(o.Pushed(len(results) + len(alerts)))
            self._push_again(self._batches.join(results) + alerts)

    def _push_again(self, pushes: Sequence[Push], crashes: int = 0) -> None:
        try:
            self.publisher.push(pushes, crashes=crashes)
        except DeliveryClosedError:
            return  # we are stopping; the events stay with the broker

    def results(self, results: Sequence[PushResult]) -> None:
        """Take proofs and refusals from the publisher's thread."""
        succeeded: list[Event] = []
        reported: list[FailedEvent] = []
        for result in results:
            context = result.push.context
            if result.rejection is not None:
                self._refused(result, result.rejection)
            elif isinstance(context, Event):
                succeeded.append(context)
            elif isinstance(context, FailedEvent):
                reported.append(context)
            else:
                succeeded += [cast("Event", each.context) for each in members(result.push)]
                self._batches.confirmed()
        if reported or succeeded:
            self._observe(o.Confirmed(len(reported) + len(succeeded)))
        if reported:
            self._held_alerts.reported(reported)
            self._dead_letter(reported)
        if succeeded:
            self._acknowledge(succeeded)

    def _dead_letter(self, dead: Sequence[FailedEvent]) -> None:
        """Have events moved to the dead letters; those that would lose their content there stay where they are."""
        hidden = [each.event for each in dead if each.event.message.hides_body]
        if hidden:
            kept = self._in_flight.keep(hidden)
            self._guard.end(hidden)
            if kept - len(hidden) < self._rules.window <= kept:
                self._observe(o.Warned(f"{kept} messages that cannot be read fill the window: no others come. {_FULL}"))
        if moving := [each for each in dead if not each.event.message.hides_body]:
            self.dead_letter_writer.dead_letter(moving)

    def _acknowledge(self, events: Sequence[Event]) -> None:
        self.subscription.ack(self._in_flight.confirmed(events))
        self._guard.end(events)
        now = time.monotonic()
        self._observe(o.Succeeded([now - event.delivered_at for event in events]))

    def _refused(self, result: PushResult, reason: str) -> None:
        """Phoenix refused this payload: try again, then give it up; at once if the channel crashed of it."""
        push, crashes = result.push, result.crashes
        if members(push):
            singly = self._batches.take_apart(push, reason)
            self._push_later(0.0, singly, crashes)
            return
        context = cast("FailedEvent | Event", push.context)  # we push no others
        event = context.event if isinstance(context, FailedEvent) else context
        event.refusals += 1
        if isinstance(context, FailedEvent) and not push.reduced:
            self._push_later(self._held_alerts.hold(context, result), [push], crashes)
        elif not crashes and event.refusals % self._rules.max_refusals:
            self._push_later(self._rules.backoff.wait(event.refusals), [push])
        elif isinstance(context, FailedEvent):
            self._push_later(0.0, [push.without_payload()], crashes)
        else:
            self._give_up(event, reason, crashes)

    def _give_up(self, event: Event, reason: str, crashes: int) -> None:
        """Report and bury an event whose result is refused; with a minimal alert if that result crashes the channel."""
        dead = FailedEvent(event, Failure("publish", "PushRefused", f"Phoenix refuses the result: {reason}"))
        if not crashes:
            self.retries.after(0.0, lambda: self._push([], [dead]))
            return
        alert = self._alert(dead).without_payload()
        self._observe(o.Pushed(1))
        self._push_later(0.0, [alert], crashes)

    def _push_later(self, delay_s: float, pushes: Sequence[Push], crashes: int = 0) -> None:
        self.retries.after(delay_s, lambda: self._push_again(pushes, crashes))

    def admitted_again(self, admission: Admission) -> None:
        """Report redelivered events that are known, and bury again those whose dead letter may not have arrived."""
        for event_id in (
            *(event.event_id for event in admission.in_work),
            *(envelope_id(message) for message in admission.confirmed),
            *(dead.event.event_id for dead in admission.dead),
        ):
            self._observe(o.DuplicateDelivery(event_id))
        if admission.dead:
            self.dead_letter_writer.dead_letter(admission.dead)
