"""The consumer: takes messages in, lets the parts work on them, and ends in good order.

At the end: intake stops first, then workers finish what they have begun, then the publisher drains, then the last
dead letters and acks are written, and only then the connections close. What is left goes back to the broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infertool.brokers.port import Broker, Subscription
from infertool.consumer.attempt import Preparation
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.dead_letter_writer import DeadLetterWriter, LetterForm
from infertool.consumer.delivery import OnResults, Publisher
from infertool.consumer.documents import Documents
from infertool.consumer.event import Event, Failure, Outcome
from infertool.consumer.executor import Executor
from infertool.consumer.gauge import Gauge
from infertool.consumer.in_flight import InFlight
from infertool.consumer.intake import Intake
from infertool.consumer.push_batches import PushBatches
from infertool.consumer.router import Router, Rules
from infertool.consumer.tuning import window, workload
from infertool.consumer.worker_pool import WorkerPool
from infertool.errors import OutputError
from infertool.message import Message
from infertool.net.backoff import FullJitter
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.settings import Settings
from infertool.telemetry import signals as o

# How often a run looks whether it should end, in seconds.
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Until:
    """When a run ends by itself: after so many events, or after so many seconds without any. None: never."""

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
        make_publisher: Callable[[OnResults], Publisher],
        name: str,
        state_dir: Path,
        observe: o.Observe,
        until: Until,
    ) -> None:
        self._settings = settings
        self._worker_pool = worker_pool
        self._name = name
        self._observe = observe
        self._until = until
        self._push_batch = settings.publish.batch if settings.publish.mode == "phoenix" else 1
        self._seen = 0
        self._quiet_since = time.monotonic()
        self._connected = False
        self._stopping = False
        self._fatal: BaseException | None = None
        self._broker = open_broker(self._on_connection)
        self._window = window(
            settings.consume, self._push_batch, until.max_messages, self._broker.capabilities.max_unacked
        )
        self._guard = CrashGuard(state_dir, broker=self._broker.address, queue=settings.broker.queue, observe=observe)
        # The broker can redeliver no more than the window; several windows cover reconnects in quick succession.
        self._in_flight = InFlight(memory=10 * self._window, most=until.max_messages)
        self._router = self._make_router()
        self._publisher = make_publisher(self._router.results)
        self._executor = self._make_executor()
        self._gauge = Gauge(
            in_progress=lambda: len(self._in_flight),
            window=self._window,
            measure=lambda timeout_s: self._broker.measure(settings.broker.queue, timeout_s),
            pending=lambda: self._publisher.pending().joined(self._router.held_alerts()),
            observe=observe,
        )
        self._subscription: Subscription
        self._intake: Intake
        self._dead_letter_writer: DeadLetterWriter

    def _make_router(self) -> Router:
        consume, publish = self._settings.consume, self._settings.publish
        backoff = FullJitter(consume.retry_base_s, consume.retry_max_s)
        documents = Documents(include_payload=publish.include_payload, max_bytes=publish.max_bytes)
        rules = Rules(consume.max_attempts, publish.max_refusals, backoff, self._window)
        push_batches = PushBatches(self._push_batch, publish.max_bytes, warn=lambda text: self._observe(o.Warned(text)))
        return Router(rules, documents, push_batches, self._in_flight, self._guard, self._observe)

    def _make_executor(self) -> Executor:
        consume = self._settings.consume
        prepare = Preparation(
            max_body_bytes=consume.max_body_bytes,
            on_redelivered=self._guard.begin if consume.crash_guard else _unguarded,
        )
        return Executor(
            self._worker_pool,
            prepare,
            workload(consume),
            on_outcomes=self._outcomes,
            on_tuned=lambda name, value: self._observe(o.Tuned(name, value)),
            on_stuck=self._hand_off_reader,
            on_fatal=self.fail,
        )

    def run(self) -> None:
        """Run until `stop`, the end that `until` names, or an error that cannot be worked around.

        Raises `UnreachableError`, `RefusedError` and `JoinRefusedError` when a server cannot be used at the start.
        """
        try:
            self._publisher.start()
            self._broker.connect()
            self._subscription = self._broker.subscribe(self._settings.broker.queue, window=self._window)
            self._start_parts()
            try:
                self._intake.start()
                while not (self._stopping or self._in_flight.wait_full(POLL_S) or self._idled()):
                    pass
                self._in_flight.close()
                self._await_settlement()
            finally:
                self._finish_work()
        finally:
            self._publisher.close(1.0)
            self._broker.close(self._settings.broker.receipt_timeout_s)
            self._guard.close()
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        """End gracefully: take no more, finish what has begun within the deadline, hand back the rest."""
        self._stopping = True

    def fail(self, error: BaseException) -> None:
        """End because of `error`, which `run` will raise."""
        self._fatal = self._fatal or error
        self._stopping = True

    def _start_parts(self) -> None:
        self._dead_letter_writer = DeadLetterWriter(
            self._subscription,
            self._in_flight,
            form=LetterForm(
                self._settings.deadletter.queue, self._name, self._worker_pool.name, self._broker.conventions
            ),
            capabilities=self._broker.capabilities,
            timeout_s=self._settings.broker.receipt_timeout_s,
            observe=self._observe,
            on_dead_lettered=lambda batch: self._guard.end([dead.event for dead in batch]),
        )
        self._intake = Intake(
            self._subscription,
            self._window,
            run=partial(self._take_in, work_on=self._executor.run_or_submit),
            submit=partial(self._take_in, work_on=self._executor.submit),
        )
        self._router.executor = self._executor
        self._router.publisher = self._publisher
        self._router.dead_letter_writer = self._dead_letter_writer
        self._router.subscription = self._subscription
        self._executor.start()
        self._router.retries.start()
        self._dead_letter_writer.start()
        self._gauge.start()

    def _take_in(self, messages: list[Message], work_on: Callable[[Sequence[Event]], None]) -> None:
        """Admit messages on one of the broker's threads."""
        try:
            self._admit(messages, work_on)
        except Exception as error:  # noqa: BLE001  (a fault of ours must end the run, not one connection after another)
            self.fail(error)

    def _hand_off_reader(self) -> None:
        self._intake.hand_off_reader()

    def _admit(self, messages: Sequence[Message], work_on: Callable[[Sequence[Event]], None]) -> None:
        admission = self._in_flight.admit(messages)
        if received := len(messages) - len(admission.left):
            redelivered = _redelivered(messages) - _redelivered(admission.left)
            self._observe(o.Received(received, redelivered))
        if admission.confirmed:
            self._subscription.ack(admission.confirmed)
        if admission.in_work or admission.confirmed or admission.dead:
            self._router.admitted_again(admission)
        work_on(admission.fresh)

    def _idled(self) -> bool:
        seen, self._seen = self._seen, self._in_flight.admitted
        now = time.monotonic()
        if len(self._in_flight) or self._seen > seen or not self._connected:
            self._quiet_since = now
        return self._until.idle_s is not None and now - self._quiet_since >= self._until.idle_s

    def _await_settlement(self) -> None:
        """Wait for what is open, and for what was postponed: that comes again, unless another consumer gets it."""
        quiet_since = time.monotonic()
        while not self._stopping and not self._in_flight.wait_empty(POLL_S):
            if len(self._in_flight) or not self._connected:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > self._settings.consume.stop_deadline_s:
                return

    def _finish_work(self) -> None:
        deadline = time.monotonic() + self._settings.consume.stop_deadline_s
        self._gauge.stop()
        self._intake.stop(_left(deadline))
        self._router.retries.stop()
        self._executor.stop(deadline)
        self._publisher.drain(_left(deadline))
        self._publisher.stop()
        self._dead_letter_writer.stop(_left(deadline))
        if unsettled := self._in_flight.unsettled():
            self._observe(o.HandedBack(unsettled))

    def _outcomes(self, outcomes: Sequence[Outcome]) -> None:
        try:
            self._router.outcomes(outcomes)
        except OSError as error:
            self.fail(OutputError(error.strerror or str(error)))

    def _on_connection(self, event: ConnectionEvent) -> None:
        self._connected = event.state is ConnectionState.CONNECTED
        if self._connected:
            self._gauge.reconnected()
        self._observe(o.ConnectionChanged("broker", event))


def _unguarded(event: Event) -> Failure | None:  # noqa: ARG001  (the guard's shape)
    return None


def _redelivered(messages: Sequence[Message]) -> int:
    return sum(message.redelivered for message in messages)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
