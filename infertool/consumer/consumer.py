"""The consumer: connects broker and publisher, runs a pipeline between them, and ends it in good order.

At the end the intake stops first; then workers finish what they have begun, the publisher drains, and the last dead
letters and acks are written. Then the connections close. The broker redelivers what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from infertool.brokers import registry, weighted_queues
from infertool.brokers.partitioned import Joins, Lag, Lagging, Limiting
from infertool.brokers.port import Broker, Monitored, Subscription, Widens
from infertool.consumer import weighted
from infertool.consumer.attempt import FailedEvent
from infertool.consumer.batching.policy import AdaptiveBatches
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.dead_letter_writer import DeadLetterWriter, LetterForm
from infertool.consumer.delays import Delays
from infertool.consumer.executor import Executor
from infertool.consumer.gauge import Gauge, Probes
from infertool.consumer.growth import WindowGrowth
from infertool.consumer.guarded import explained
from infertool.consumer.in_flight import InFlight
from infertool.consumer.pipeline import Pipeline
from infertool.consumer.requests import Requests
from infertool.consumer.router import DROPPED_EVENT, Published, event_of
from infertool.consumer.settlement import Settlement
from infertool.consumer.tracing import Exporter, Places, Tracing
from infertool.consumer.tuning import growing_window, window
from infertool.consumer.weighted import WeightedSubscription, Writer, Writers
from infertool.consumer.worker import WorkerPool
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.net.timing import left_s
from infertool.publishers.joined import JoinedPublishers
from infertool.publishers.port import Publisher
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
        self._quiet_checks = 0
        self._connected = False
        self._stopping = False
        self._fatal: BaseException | None = None
        self._gauge: Gauge | None = None
        self._broker = open_broker(self._on_connection)
        if settings.consume.reply:
            replies = replies_to(self._broker, observe)
            # A publisher of nothing confirms nothing that counts.
            self._publisher = publisher = replies if settings.publish.mode == "none" else joined(replies, publisher)
        if self._detailed:
            self._publisher = publisher = TimedPublisher(publisher, observe)
        self._queues = weighted_queues.parse(settings.broker.queue)
        self._delays = Delays(self._queues, settings.deadletter.retry_topics)
        is_weighted = len(self._queues) > 1 or bool(self._delays.all)
        self._window = window(
            settings.consume,
            publisher.batch,
            until.max_messages,
            self._broker.capabilities.max_unacked,
            in_batches=worker_pool.in_batches,
            weighted=is_weighted,
        )
        publisher.widen(self._window)
        self._names = [queue.name for queue in self._queues]
        guarded = ",".join(self._names)
        is_on = settings.consume.crash_guard
        self._guard = CrashGuard(state_dir, broker=self._broker.address, queue=guarded, observe=observe, is_on=is_on)
        self._tracing: Tracing | None = None
        # The broker redelivers the window; several windows cover reconnects in quick succession. A broker that was
        # killed also redelivers what it had not yet noted as acked: RabbitMQ some 80 events at 250 a second.
        subscriptions = len(self._queues) + len(self._delays.all)
        self._held = weighted.AT_HAND * self._window * subscriptions if is_weighted else self._window
        most = self._held
        if worker_pool.in_batches and settings.consume.batch_size == "auto":
            most = growing_window(settings.consume, self._held, until.max_messages).most
        memory = max(10 * most, _LEAST_MEMORY)
        self._in_flight = InFlight(memory=memory, most=until.max_messages)

    def run(self) -> None:
        """Run until `stop`, the end that `until` names, or an error that cannot be worked around.

        Raises `UnreachableError`, `RefusedError` and `JoinRefusedError` when a server cannot be used at the start.
        """
        try:
            self._publisher.start()
            self._broker.connect()
            subscription = weighted.subscribe(self._broker, self._queues, self._window, self._delays.all)
            self._check_time()
            self._process(subscription)
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
        system = registry.system(settings.broker.url)
        names = {name: self._broker.conventions.short(name) for name in self._names}
        queue, address = ",".join(names.values()), lambda: self._broker.address
        places = Places(system, queue, topic, self._worker_pool.name, address, names)
        as_parent = settings.telemetry.trace_parent == "parent"
        self._tracing = Tracing(spans, places, as_parent=as_parent, observe=self._observe)

    def stop(self) -> None:
        """End gracefully: take no more, finish what has begun within the deadline, hand back the rest."""
        self._stopping = True

    def fail(self, error: BaseException) -> None:
        """End because of `error`, which `run` will raise."""
        self._fatal = self._fatal or explained(error)
        self._stopping = True

    def _process(self, subscription: Subscription) -> None:
        """Process the messages of `subscription` until the run ends."""
        if isinstance(subscription, WeightedSubscription):
            writer: Writer = Writers(subscription, self._make_writer)
        else:
            writer = self._make_writer(subscription)
        settlement = Settlement(
            subscription,
            self._in_flight,
            self._guard,
            writer,
            self._held,
            self._observe,
            detailed=self._detailed,
            delays=self._delays if self._delays.all else None,
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
        growth = self._make_growth(subscription, settlement, pipeline.executor)
        pipeline.start()
        if growth:
            growth.start()
        writer.start()
        gauge.start()
        try:
            pipeline.take_messages()
            while not (self._stopping or self._in_flight.wait_full(POLL_S) or self._idled(subscription)):
                pass
            self._in_flight.close()
            self._await_settlement()
        finally:
            deadline = time.monotonic() + self._settings.consume.stop_deadline_s
            if growth:
                growth.stop()
            pipeline.finish(deadline)
            writer.stop(left_s(deadline))
            gauge.stop()
            if unsettled := self._in_flight.unsettled():
                self._observe(signals.HandedBack(unsettled))

    def _make_growth(
        self, subscription: Subscription, settlement: Settlement, executor: Executor
    ) -> WindowGrowth | None:
        """Return what adapts window and batches to each other, where batches adapt."""
        batches = executor.batches
        if not isinstance(batches, AdaptiveBatches):
            return None
        plan = growing_window(self._settings.consume, self._window, self._until.max_messages)
        batches.limit(plan.room)
        if not isinstance(subscription, Widens):
            return None

        def grown(window: int) -> None:
            self._window = self._held = settlement.window = window
            self._publisher.widen(window)

        return WindowGrowth(plan, batches, subscription, executor, self._in_flight, grown, self.fail)

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
            fail=self.fail,
        )

    def _dead_lettered(self, batch: Sequence[FailedEvent]) -> None:
        self._guard.end([failed.event for failed in batch])
        if self._tracing:
            self._tracing.dead_lettered([failed for failed in batch if not failed.delay])

    def _make_gauge(self, pipeline: Pipeline) -> Gauge:
        return Gauge(
            in_progress=lambda: len(self._in_flight),
            window=lambda: self._window,
            measure=lambda timeout_s: weighted_queues.measure(self._broker, self._names, timeout_s),
            pending=pipeline.unconfirmed,
            observe=self._observe,
            fail=self.fail,
            lag=self._lag if isinstance(self._broker, Lagging) else None,
            probes=self._make_probes(pipeline) if self._detailed else None,
        )

    def _check_time(self) -> None:
        """Warn of a model that may take longer than the broker waits for an event."""
        if not isinstance(self._broker, Limiting):
            return
        for name in self._names:
            limit = self._broker.time_limit(name, self._settings.broker.receipt_timeout_s)
            if limit and (wrong := limit.exceeded_by(self._settings.consume.timeout_s)):
                self._observe(signals.Warned(f"{name}: {wrong}"))

    def _lag(self, timeout_s: float) -> Lag | None:
        return weighted_queues.lag(self._broker, self._names, timeout_s) if isinstance(self._broker, Lagging) else None

    def _make_probes(self, pipeline: Pipeline) -> Probes:
        broker = self._broker

        def oldest_s(timeout_s: float) -> float | None:
            if not isinstance(broker, Monitored):
                return None
            sent_ms = weighted_queues.oldest_sent_ms(broker, self._names, timeout_s)
            return None if sent_ms is None else max(0.0, time.time() - sent_ms / 1000)

        def ticks() -> signals.Ticks:
            reader_s = broker.reader_silent_s() if isinstance(broker, Monitored) else None
            return replace(pipeline.ticks(), reader_s=reader_s)

        return Probes(oldest_s, lambda timeout_s: broker.measure(self._settings.deadletter.queue, timeout_s), ticks)

    def _idled(self, subscription: Subscription) -> bool:
        """Return True if no event came for `idle_s`.

        What counts are the checks, not a clock: the time of a start, or of a process that was held up, is no time
        without events. Nor is that until a group gives it partitions.
        """
        seen, self._seen = self._seen, self._in_flight.admitted
        is_quiet = self._connected and not len(self._in_flight) and self._seen == seen
        if is_quiet and isinstance(subscription, Joins):
            is_quiet = subscription.partitions is not None
        self._quiet_checks = self._quiet_checks + 1 if is_quiet else 0
        return self._until.idle_s is not None and self._quiet_checks * POLL_S >= self._until.idle_s

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


def replies_to(broker: Broker, observe: signals.Observe) -> ReplyPublisher[Published]:
    """Return a publisher of replies alone."""
    return ReplyPublisher[Published](broker, lambda publication: publication.context.reply, observe)


def joined(replies: ReplyPublisher[Published], publisher: Publisher[Published]) -> Publisher[Published]:
    """Return a publisher of replies and of all that `publisher` gets."""
    return JoinedPublishers([replies, publisher], key=event_of, first_only=frozenset({DROPPED_EVENT}))
