"""The consumer: connects broker and publisher, runs a pipeline between them, and ends it in good order.

At the end the intake stops first; then workers finish what they have begun, the publisher drains, and the last dead
letters and acks are written. Then the connections close. The broker redelivers what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from infertool.brokers import registry
from infertool.brokers.port import Broker, Monitored, Subscription
from infertool.codec import BY_NAME
from infertool.consumer.attempt import Decoding, Event, FailedEvent, Failure, Outcome, Preparation
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.dead_letter_writer import DeadLetterWriter, LetterForm
from infertool.consumer.documents import Documents
from infertool.consumer.executor import Executor
from infertool.consumer.gauge import Gauge, Probes
from infertool.consumer.in_flight import InFlight, Intake
from infertool.consumer.requests import Answers, Requests
from infertool.consumer.router import DROPPED_EVENT, Published, Router, Rules, event_of
from infertool.consumer.settlement import Settlement
from infertool.consumer.tracing import Exporter, Places, TracedPreparation, Tracing
from infertool.consumer.tuning import window, workload
from infertool.consumer.worker import WorkerPool
from infertool.errors import OutputError
from infertool.message import Message
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.net.timing import FullJitter
from infertool.publishers.joined import JoinedPublishers
from infertool.publishers.port import Confirmation, Publisher, Rejection
from infertool.publishers.reply import ReplyPublisher
from infertool.publishers.timed import TimedPublisher
from infertool.settings import Settings
from infertool.telemetry import signals

# Time between two checks whether a run should end. Seconds.
POLL_S = 0.1

# Longest wait at the end for the export of spans. Seconds.
SPANS_S: Final = 5.0

# Finished events that are recognised when they are delivered again.
_LEAST_MEMORY: Final = 2000


@dataclass(frozen=True, slots=True)
class Until:
    """When a run ends by itself: after `max_messages` events, or after `idle_s` seconds without any. None: never."""

    max_messages: int | None = None
    idle_s: float | None = None


class Consumer:
    """One run. `stop` may be called from a signal handler: it only sets a flag."""

    def __init__(
        self,
        settings: Settings,
        worker_pool: WorkerPool,
        *,
        open_broker: Callable[[Callable[[ConnectionEvent], None]], Broker],
        publisher: Publisher[Published],
        name: str,
        state_dir: Path,
        observe: signals.Observe,
        until: Until,
    ) -> None:
        self._detailed = settings.is_detailed
        self._settings = settings
        self._worker_pool = worker_pool
        self._publisher = publisher
        self._name = name
        self._observe = observe
        self._until = until
        self._seen = 0
        self._quiet_since = time.monotonic()
        self._connected = False
        self._stopping = False
        self._fatal: BaseException | None = None
        self._gauge: Gauge | None = None
        self._broker = open_broker(self._on_connection)
        if settings.consume.reply:
            self._publisher = publisher = with_replies(self._broker, publisher, observe)
        if self._detailed:
            self._publisher = publisher = TimedPublisher(publisher, observe)
        self._window = window(
            settings.consume, publisher.batch, until.max_messages, self._broker.capabilities.max_unacked
        )
        self._guard = CrashGuard(state_dir, broker=self._broker.address, queue=settings.broker.queue, observe=observe)
        # The broker redelivers the window; several windows cover reconnects in quick succession. A broker that was
        # killed also redelivers what it had not yet noted as acked: RabbitMQ some 80 events at 250 a second.
        self._tracing: Tracing | None = None
        self._in_flight = InFlight(memory=max(10 * self._window, _LEAST_MEMORY), most=until.max_messages)

    def run(self) -> None:
        """Run until `stop`, the end that `until` names, or an error that cannot be worked around.

        Raises `UnreachableError`, `RefusedError` and `JoinRefusedError` when a server cannot be used at the start.
        """
        try:
            self._publisher.start()
            self._broker.connect()
            self._process(self._broker.subscribe(self._settings.broker.queue, window=self._window))
        finally:
            self._publisher.close(1.0)
            self._broker.close(self._settings.broker.receipt_timeout_s)
            self._guard.close()
            if self._tracing:
                self._tracing.close(SPANS_S)
        if self._fatal is not None:
            raise self._fatal

    def record(self, spans: Exporter) -> None:
        """Have `spans` export the traces of events, and close it at the end of the run. Call this before `run`."""
        settings = self._settings
        topic = settings.phoenix.topic if settings.publish.mode == "phoenix" else ""
        system, queue = registry.system(settings.broker.url), self._broker.conventions.short(settings.broker.queue)
        places = Places(system, queue, topic, self._worker_pool.name, lambda: self._broker.address)
        as_parent = settings.telemetry.trace_parent == "parent"
        self._tracing = Tracing(spans, places, as_parent=as_parent, observe=self._observe)

    def stop(self) -> None:
        """End gracefully: take no more, finish what has begun within the deadline, hand back the rest."""
        self._stopping = True

    def fail(self, error: BaseException) -> None:
        """End because of `error`, which `run` will raise."""
        self._fatal = self._fatal or error
        self._stopping = True

    def _process(self, subscription: Subscription) -> None:
        """Process the messages of `subscription` until the run ends."""
        writer = self._make_writer(subscription)
        settlement = Settlement(
            subscription, self._in_flight, self._guard, writer, self._window, self._observe, detailed=self._detailed
        )
        pipeline = Pipeline(
            self._settings,
            self._worker_pool,
            self._publisher,
            settlement,
            requests=self._requests(),
            tracing=self._tracing,
            observe=self._observe,
            fail=self.fail,
        )
        gauge = self._gauge = self._make_gauge(pipeline)
        pipeline.start()
        writer.start()
        gauge.start()
        try:
            pipeline.take_messages()
            while not (self._stopping or self._in_flight.wait_full(POLL_S) or self._idled()):
                pass
            self._in_flight.close()
            self._await_settlement()
        finally:
            deadline = time.monotonic() + self._settings.consume.stop_deadline_s
            gauge.stop()
            pipeline.finish(deadline)
            writer.stop(_left(deadline))
            if unsettled := self._in_flight.unsettled():
                self._observe(signals.HandedBack(unsettled))

    def _requests(self) -> Requests | None:
        if not self._settings.consume.reply:
            return None
        # The result of a request that is published, too, has others who wait for it.
        return Requests(self._reply_exists if self._settings.publish.mode == "none" else None)

    def _reply_exists(self, reply_to: str, timeout_s: float) -> bool | None:
        return self._broker.reply_exists(self._broker.conventions.reply_queue(reply_to), timeout_s)

    def _make_writer(self, subscription: Subscription) -> DeadLetterWriter:
        return DeadLetterWriter(
            subscription,
            self._in_flight,
            form=LetterForm(self._settings.deadletter.queue, self._name, self._worker_pool.name, self._broker),
            timeout_s=self._settings.broker.receipt_timeout_s,
            observe=self._observe,
            on_dead_lettered=self._dead_lettered,
        )

    def _dead_lettered(self, batch: Sequence[FailedEvent]) -> None:
        self._guard.end([failed.event for failed in batch])
        if self._tracing:
            self._tracing.dead_lettered(batch)

    def _make_gauge(self, pipeline: Pipeline) -> Gauge:
        return Gauge(
            in_progress=lambda: len(self._in_flight),
            window=self._window,
            measure=lambda timeout_s: self._broker.measure(self._settings.broker.queue, timeout_s),
            pending=pipeline.unconfirmed,
            observe=self._observe,
            probes=self._make_probes(pipeline) if self._detailed else None,
        )

    def _make_probes(self, pipeline: Pipeline) -> Probes:
        broker = self._broker

        def oldest_s(timeout_s: float) -> float | None:
            if not isinstance(broker, Monitored):
                return None
            sent_ms = broker.oldest_sent_ms(self._settings.broker.queue, timeout_s)
            return None if sent_ms is None else max(0.0, time.time() - sent_ms / 1000)

        def ticks() -> signals.Ticks:
            reader_s = broker.reader_silent_s() if isinstance(broker, Monitored) else None
            return replace(pipeline.ticks(), reader_s=reader_s)

        return Probes(oldest_s, lambda timeout_s: broker.measure(self._settings.deadletter.queue, timeout_s), ticks)

    def _idled(self) -> bool:
        seen, self._seen = self._seen, self._in_flight.admitted
        now = time.monotonic()
        if len(self._in_flight) or self._seen > seen or not self._connected:
            self._quiet_since = now
        return self._until.idle_s is not None and now - self._quiet_since >= self._until.idle_s

    def _await_settlement(self) -> None:
        """Wait until all is settled. A postponed event is redelivered here, unless another consumer gets it."""
        quiet_since = time.monotonic()
        while not self._stopping and not self._in_flight.wait_empty(POLL_S):
            if len(self._in_flight) or not self._connected:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > self._settings.consume.stop_deadline_s:
                return

    def _on_connection(self, event: ConnectionEvent) -> None:
        self._connected = event.state is ConnectionState.CONNECTED
        if self._connected and self._gauge:
            self._gauge.reconnected()
        self._observe(signals.ConnectionChanged("broker", event))


def with_replies(broker: Broker, publisher: Publisher[Published], observe: signals.Observe) -> Publisher[Published]:
    """Return a publisher of replies and of all that `publisher` gets."""
    replies = ReplyPublisher[Published](broker, lambda publication: publication.context.reply, observe)
    return JoinedPublishers([replies, publisher], key=event_of, first_only=frozenset({DROPPED_EVENT}))


class Pipeline:
    """Intake, executor, router and publisher, connected for the messages of the settlement's subscription."""

    def __init__(
        self,
        settings: Settings,
        worker_pool: WorkerPool,
        publisher: Publisher[Published],
        settlement: Settlement,
        *,
        requests: Requests | None,
        tracing: Tracing | None,
        observe: signals.Observe,
        fail: Callable[[BaseException], None],
    ) -> None:
        consume, publish = settings.consume, settings.publish
        self._publisher = publisher
        self._settlement = settlement
        self._fail = fail
        self._tracing = tracing
        prepare = Preparation(
            Decoding(
                consume.max_body_bytes,
                BY_NAME[settings.contract.format],
                any_value=consume.reply,
                on_invalid_trace=lambda: observe(signals.TraceIgnored()),
            ),
            settlement.begin if consume.crash_guard else _unguarded,
            requests.check if requests else None,
            requests.check_deadline if requests else None,
        )
        self._executor = Executor(
            worker_pool,
            TracedPreparation(prepare, tracing) if tracing else prepare,
            workload(consume),
            on_outcomes=self._outcomes_traced if tracing else self._outcomes,
            on_tuned=lambda name, value: observe(signals.Tuned(name, value)),
            on_stuck=self._hand_off_reader,
            on_fatal=fail,
            on_batch=(lambda size: observe(signals.Batch(size))) if settings.is_detailed else None,
        )
        self._router = Router(
            Rules(consume.max_attempts, publish.max_refusals, FullJitter(consume.retry_base_s, consume.retry_max_s)),
            Documents(include_payload=publish.include_payload, max_bytes=publish.max_bytes),
            self._executor,
            publisher,
            settlement,
            observe,
            answers=Answers(consume.reply_form) if consume.reply else None,
            requests=requests,
        )
        self._intake = Intake(
            settlement.subscription,
            settlement.window,
            run=partial(self._take_in, work_on=self._executor.run_or_submit),
            submit=partial(self._take_in, work_on=self._executor.submit),
        )

    def start(self) -> None:
        """Start the threads. No message comes before `take_messages`."""
        self._publisher.report_to(self._settled_traced if self._tracing else self._router.settled)
        self._executor.start()
        self._router.start()

    def take_messages(self) -> None:
        """Begin to take messages."""
        self._intake.start()

    def finish(self, deadline: float) -> None:
        """Take no more, and finish what has begun until `deadline`, in monotonic seconds."""
        self._intake.stop(_left(deadline))
        self._router.stop()
        self._executor.stop(deadline)
        self._publisher.drain(_left(deadline))
        self._publisher.stop()

    def ticks(self) -> signals.Ticks:
        """Return when the watchdog looked last, and how long the longest call has taken."""
        return self._executor.ticks()

    def unconfirmed(self) -> signals.Unconfirmed:
        """Return the number of publications without a confirmation, and the age of the oldest."""
        return self._publisher.pending().joined(self._router.held_alerts())

    def _take_in(self, messages: list[Message], work_on: Callable[[Sequence[Event]], None]) -> None:
        """Admit messages on one of the broker's threads."""
        try:
            work_on(self._settlement.admit(messages))
        except Exception as error:  # noqa: BLE001  (a fault of ours must end the run, not one connection after another)
            self._fail(error)

    def _hand_off_reader(self) -> None:
        self._intake.hand_off_reader()

    def _outcomes(self, outcomes: Sequence[Outcome]) -> None:
        try:
            self._router.outcomes(outcomes)
        except OSError as error:
            self._fail(OutputError(error.strerror or str(error)))

    def _outcomes_traced(self, outcomes: Sequence[Outcome]) -> None:
        assert self._tracing is not None  # noqa: S101  (the only caller was chosen so)
        self._tracing.outcomes(outcomes, self._outcomes)

    def _settled_traced(
        self, confirmations: Sequence[Confirmation[Published]], rejections: Sequence[Rejection[Published]]
    ) -> None:
        assert self._tracing is not None  # noqa: S101  (the only caller was chosen so)
        self._tracing.settled(confirmations, rejections, self._router.settled)


def _unguarded(event: Event) -> Failure | None:  # noqa: ARG001  (the guard's shape)
    return None


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
