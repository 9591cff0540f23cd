"""The router decides what follows an outcome: another try, a publication, an ack, or a dead letter.

A success is acked after its result is confirmed. A failure is published first, and becomes a dead letter after that is
confirmed: a dead letter without an alert cannot happen. An alert may come twice, since delivery is at-least-once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from infertool.consumer.attempt import DroppedEvent, Event, FailedEvent, Failure, Outcome
from infertool.consumer.documents import Documents, unencodable
from infertool.consumer.guarded import Fail, guarded
from infertool.consumer.requests import DROPPED, Answers, Requests
from infertool.consumer.settlement import Settlement
from infertool.models.port import Cached
from infertool.net.timing import FullJitter, Schedule, Timers
from infertool.publishers.port import Confirmation, Publication, Publisher, PublisherClosedError, Rejection
from infertool.telemetry import signals
from infertool.text.times import iso

RESULT_EVENT = "new_result"
FAILURE_EVENT = "inference_failed"

# Waits until a rejected minimal alert is published again. A crash holds up everything else. Seconds.
AFTER_AN_ANSWER = Schedule((1.0, 2.0, 5.0, 10.0, 30.0))
AFTER_A_CRASH = Schedule((300.0,))

# A request that is dropped: only its caller gets to know it.
DROPPED_EVENT = "dropped"

_GONE: Final = object()

# The context of a publication: the event of a result, the failed event of an alert, or a request that is dropped.
Published = Event | FailedEvent | DroppedEvent


def event_of(context: Published) -> Event:
    """Return the event that a publication is about."""
    return context if isinstance(context, Event) else context.event


class Executor(Protocol):
    """Tries events."""

    def submit(self, events: Sequence[Event]) -> None:
        """Queue events."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The number of tries of an event, and of publications of its result, before it fails; and the waits between."""

    max_attempts: int
    max_rejections: int
    backoff: FullJitter


class Router:
    """Connects the executor, the publisher and the settlement.

    `fail` gets an error of the thread that tries again, and that of a publisher that has ended by itself.
    """

    def __init__(  # noqa: PLR0913  # what it connects
        self,
        rules: Rules,
        documents: Documents,
        executor: Executor,
        publisher: Publisher[Published],
        settlement: Settlement,
        observe: signals.Observe,
        *,
        fail: Fail,
        answers: Answers | None = None,
        requests: Requests | None = None,
    ) -> None:
        self._answers = answers
        self._requests = requests
        self._rules = rules
        self._documents = documents
        self._executor = executor
        self._publisher = publisher
        self._settlement = settlement
        self._observe = observe
        self._fail = fail
        self._stopping = False
        self._held_alerts = HeldAlerts(publisher.name, lambda text: observe(signals.Warned(text)))
        self._later = Timers("retries")
        # Events that wait for their next try.
        self._waiting: dict[Event, object] = {}

    def start(self) -> None:
        """Start the thread that tries again."""
        self._later.start()

    def stop(self) -> None:
        """Try nothing again. A publication in progress goes on."""
        self._stopping = True
        self._later.stop()

    def held_alerts(self) -> signals.Unconfirmed:
        """Return the number of alerts that are rejected and published again later, and the age of the oldest."""
        return self._held_alerts.pending()

    def remove(self, is_wanted: Callable[[Event], bool]) -> list[Event]:
        """Remove and return the events that wait for their next try and for which `is_wanted` is True."""
        return [event for event in list(self._waiting) if is_wanted(event) and self._takes(event)]

    def _takes(self, event: Event) -> bool:
        """Return True to the first caller since the event began to wait."""
        return self._waiting.pop(event, _GONE) is not _GONE

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes from a worker thread. Those of revoked events are dropped."""
        if self._settlement.revoked:
            owned = set(self._settlement.owned([outcome.event for outcome in outcomes]))
            outcomes = [outcome for outcome in outcomes if outcome.event in owned]
        results: list[Publication[Published]] = []
        failed: list[FailedEvent] = []
        dropped: list[DroppedEvent] = []
        times: list[float] = []
        now = time.time()
        hits = 0
        for outcome in outcomes:
            failure = outcome.failure
            if failure is None:
                times.append(outcome.processing_s)
                hits += type(outcome.prediction) is Cached
                failure = self._result(outcome, now, results)
            if failure is None:
                continue
            if self._answers and failure.stage in DROPPED:
                dropped.append(self._answers.dropped(outcome.event, failure))
            elif not (self._retry(outcome.event, failure) or self._delay(outcome.event, failure)):
                failed.append(FailedEvent(outcome.event, failure))
        if times:
            self._observe(signals.Predicted(times))
            if self._requests:
                self._requests.measured(times)
        if hits:
            self._observe(signals.CacheHit(hits))
        self._publish(results, failed)
        if dropped:
            self._drop(dropped)

    def _drop(self, dropped: Sequence[DroppedEvent]) -> None:
        if unanswered := [each for each in dropped if each.reply is None]:
            self._settlement.drop(unanswered)
        if answered := [each for each in dropped if each.reply is not None]:
            self._publish_again([Publication(DROPPED_EVENT, each.event.event_id, b"", each) for each in answered])

    def _result(self, outcome: Outcome, now: float, results: list[Publication[Published]]) -> Failure | None:
        event = outcome.event
        document = b""
        try:
            if not (self._answers and self._answers.suffices(event)):
                document = self._documents.result(event, outcome.prediction, outcome.processing_s, now)
            if self._answers:
                event.reply = self._answers.result(event, outcome.prediction, outcome.processing_s, document)
        except BaseException as error:  # noqa: BLE001  (the result's own code may raise anything)
            return unencodable(error)
        results.append(Publication(RESULT_EVENT, event.event_id, document, event))
        return None

    def _retry(self, event: Event, failure: Failure) -> bool:
        if failure.hold_s is not None:
            self._defer(event, failure.hold_s, failure.error)
            return True
        event.first_failed_at = event.first_failed_at or iso(time.time())
        if not failure.retryable or event.attempts >= self._rules.max_attempts:
            return False
        delay_s = self._rules.backoff.wait(event.attempts)
        self._observe(signals.Retried(event.event_id, event.attempts, delay_s, failure.error, failure.traceback))
        self._try_later(event, delay_s)
        return True

    def _delay(self, event: Event, failure: Failure) -> bool:
        """Have an event wait in a retry topic, if there is another one. It is told of when it fails for good."""
        delay = self._settlement.delay(event) if failure.retryable else None
        if delay is None:
            return False
        self._observe(signals.Retried(event.event_id, event.attempts, delay.wait_s, failure.error, failure.traceback))
        self._settlement.dead_letter([FailedEvent(event, failure, delay=delay)])
        return True

    def _try_later(self, event: Event, delay_s: float) -> None:
        self._waiting[event] = None
        self._call_later(delay_s, partial(self._try_again, event))
        if self._settlement.is_revoking and self._settlement.is_leaving(event):
            self._settlement.release([event] if self._takes(event) else [])

    def _call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._later.after(delay_s, guarded(call, self._fail))

    def _try_again(self, event: Event) -> None:
        if self._takes(event):
            self._executor.submit([event])

    def _defer(self, event: Event, hold_s: float, error: str) -> None:
        """Wait for the model without counting the try."""
        event.attempts -= 1
        self._settlement.defer(event)
        self._observe(signals.Deferred(event.event_id, hold_s, error))
        self._try_later(event, hold_s)

    def _alert(self, failed: FailedEvent) -> Publication[Published]:
        event, failure = failed.event, failed.failure
        event.first_failed_at = event.first_failed_at or iso(time.time())
        why = (failure.stage, failure.error_type, failure.error)
        self._observe(signals.Failed(event.event_id, *why, event.attempts, failure.traceback))
        document, minimal = self._documents.failure(event, failure), self._documents.minimal(event, failure)
        # A result that Phoenix refuses has been a reply already.
        if self._answers and event.reply is None:
            failed.reply = self._answers.failure(event, failure, document)
        return Publication(FAILURE_EVENT, event.event_id, document, failed, minimal)

    def _publish(self, results: list[Publication[Published]], failed: Sequence[FailedEvent]) -> None:
        alerts = [self._alert(each) for each in failed]
        if results or alerts:
            self._observe(signals.Pushed(len(results) + len(alerts)))
            self._publish_again(results + alerts)

    def _publish_again(self, publications: Sequence[Publication[Published]], crashes: int = 0) -> None:
        if self._settlement.revoked and not (publications := self._owned(publications)):
            return
        try:
            self._publisher.publish(publications, crashes=crashes)
        except PublisherClosedError:
            # The events stay with the broker.
            if not self._stopping:
                self._fail(_ended(self._publisher.name))

    def _owned(self, publications: Sequence[Publication[Published]]) -> list[Publication[Published]]:
        """Return the publications whose events are not revoked; forget the others."""
        owned = set(self._settlement.owned([event_of(each.context) for each in publications]))
        contexts = [each.context for each in publications if event_of(each.context) not in owned]
        self._held_alerts.reported([context for context in contexts if isinstance(context, FailedEvent)])
        return [each for each in publications if event_of(each.context) in owned]

    def settled(
        self, confirmations: Sequence[Confirmation[Published]], rejections: Sequence[Rejection[Published]]
    ) -> None:
        """Take confirmations and rejections from the publisher's thread."""
        for rejection in rejections:
            if not self._settlement.revoked or self._owned([rejection.publication]):
                self._rejected(rejection)
        succeeded: list[Event] = []
        reported: list[FailedEvent] = []
        dropped: list[DroppedEvent] = []
        for confirmation in confirmations:
            context = confirmation.publication.context
            if isinstance(context, Event):
                succeeded.append(context)
            elif isinstance(context, FailedEvent):
                reported.append(context)
            else:
                dropped.append(context)
        if reported or succeeded:
            self._observe(signals.Confirmed(len(reported) + len(succeeded)))
        if dropped:
            self._settlement.drop(dropped)
        if reported:
            self._held_alerts.reported(reported)
            self._settlement.dead_letter(reported)
        if succeeded:
            self._settlement.ack(succeeded)

    def _rejected(self, rejection: Rejection[Published]) -> None:
        """Publish again, then give the payload up; at once if the receiver crashed over it."""
        publication, crashes = rejection.publication, rejection.crashes
        context = publication.context
        event = event_of(context)
        event.rejections += 1
        if isinstance(context, FailedEvent) and not publication.reduced:
            self._publish_later(self._held_alerts.hold(context, rejection), publication, crashes)
        elif not crashes and event.rejections % self._rules.max_rejections:
            self._publish_later(self._rules.backoff.wait(event.rejections), publication)
        elif isinstance(context, FailedEvent):
            self._publish_later(0.0, publication.without_payload(), crashes)
        else:
            self._give_up(event, rejection.reason, crashes)

    def _give_up(self, event: Event, reason: str, crashes: int) -> None:
        """Fail an event whose result is rejected; with a minimal alert if that result crashes the receiver."""
        failure = Failure("publish", "PushRefused", f"{self._publisher.name} refuses the result: {reason}")
        failed = FailedEvent(event, failure)
        if not crashes:
            self._call_later(0.0, partial(self._publish, [], [failed]))
            return
        alert = self._alert(failed).without_payload()
        self._observe(signals.Pushed(1))
        self._publish_later(0.0, alert, crashes)

    def _publish_later(self, delay_s: float, publication: Publication[Published], crashes: int = 0) -> None:
        self._call_later(delay_s, partial(self._publish_again, [publication], crashes))


def _ended(receiver: str) -> PublisherClosedError:
    return PublisherClosedError(
        f"nothing can be published to {receiver} any more: a thread of its connection has failed",
        advice="report the traceback that was logged, and start again: the events stay with the broker",
    )


class HeldAlerts:
    """Failed events whose minimal alert is rejected: they stay unsettled until it is confirmed. Thread-safe."""

    def __init__(self, receiver: str, warn: Callable[[str], None]) -> None:
        self._receiver = receiver
        self._warn = warn
        self._lock = threading.Lock()
        self._tries: dict[FailedEvent, int] = {}
        self._since: dict[FailedEvent, float] = {}

    def hold(self, failed: FailedEvent, rejection: Rejection[Published]) -> float:
        """Note that the minimal alert of `failed` was rejected. Return the seconds until it is published again."""
        with self._lock:
            tries = self._tries[failed] = self._tries.get(failed, 0) + 1
            self._since.setdefault(failed, time.monotonic())
            held = len(self._tries)
        wait_s = (AFTER_A_CRASH if rejection.crashes else AFTER_AN_ANSWER).wait(tries)
        if tries == 1:
            self._warn(
                f"{self._receiver} does not take {rejection.publication}, not even with nothing but its id: "
                f"{rejection.reason}; its event is kept, and is no dead letter without an alert ({held} are kept so); "
                f"next try in {wait_s:.0f} s"
            )
        return wait_s

    def reported(self, failed: Sequence[FailedEvent]) -> None:
        """Forget events whose alerts are confirmed."""
        if self._tries:
            with self._lock:
                for each in failed:
                    self._tries.pop(each, None)
                    self._since.pop(each, None)

    def pending(self) -> signals.Unconfirmed:
        """Return the number of held alerts, and the age of the oldest."""
        with self._lock:
            if not self._since:
                return signals.NONE_UNCONFIRMED
            return signals.Unconfirmed(len(self._since), time.monotonic() - min(self._since.values()))
