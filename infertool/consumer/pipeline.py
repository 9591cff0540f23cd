"""Intake, executor, router and publisher, connected for the messages of one subscription, or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from infertool.brokers.partitioned import Partitioned
from infertool.codec import BY_NAME
from infertool.consumer.attempt import Decoding, Event, Outcome, Preparation
from infertool.consumer.documents import Documents
from infertool.consumer.executor import Executor
from infertool.consumer.intake import Intake
from infertool.consumer.requests import Answers, Requests
from infertool.consumer.revocation import Revocation
from infertool.consumer.router import Published, Router, Rules
from infertool.consumer.settlement import Settlement
from infertool.consumer.tracing import TracedPreparation, Tracing
from infertool.consumer.tuning import workload
from infertool.consumer.weighted import WeightedIntake, WeightedSubscription
from infertool.consumer.worker import WorkerPool
from infertool.errors import OutputError
from infertool.message import Message
from infertool.models.loader import is_remote
from infertool.net.timing import FullJitter, left_s
from infertool.publishers.port import Confirmation, OnSettled, Publisher, Rejection
from infertool.settings import Settings
from infertool.telemetry import signals


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
        consume, publish, version = settings.consume, settings.publish, worker_pool.version
        observe(signals.ModelReady(version))
        self._publisher = publisher
        self._settlement = settlement
        self._fail = fail
        self._tracing = tracing
        prepare = Preparation(
            Decoding(
                consume.max_body_bytes,
                BY_NAME[settings.contract.format],
                any_value=consume.reply,
                exact=is_remote(settings.model),
                on_invalid_trace=lambda: observe(signals.TraceIgnored()),
            ),
            settlement.begin,
            requests.check if requests else None,
            requests.check_deadline if requests else None,
        )
        self.executor = Executor(
            worker_pool,
            TracedPreparation(prepare, tracing) if tracing else prepare,
            workload(consume, in_batches=worker_pool.in_batches),
            on_outcomes=self._outcomes_traced if tracing else self._outcomes,
            on_tuned=lambda name, value: observe(signals.Tuned(name, value)),
            on_stuck=self._hand_off_reader,
            on_fatal=fail,
            on_batch=(lambda size: observe(signals.Batch(size))) if settings.is_detailed else None,
            suspects=settlement.suspects,
        )
        self._router = Router(
            Rules(consume.max_attempts, publish.max_refusals, FullJitter(consume.retry_base_s, consume.retry_max_s)),
            Documents(include_payload=publish.include_payload, max_bytes=publish.max_bytes, model_version=version),
            self.executor,
            publisher,
            settlement,
            observe,
            fail=self._failed,
            answers=(Answers(consume.reply_form, version, only=publish.mode == "none") if consume.reply else None),
            requests=requests,
        )
        submit = partial(self._take_in, work_on=self.executor.submit)
        self._intake: Intake | WeightedIntake
        if isinstance(settlement.subscription, WeightedSubscription):
            subscription = settlement.subscription

            def room() -> int:
                return min(self.executor.room(), subscription.window - settlement.open_events())

            self._intake = WeightedIntake(subscription, submit=submit, room=room, fail=fail)
            self.executor.tell_taken(self._intake.look)
        else:
            run = partial(self._take_in, work_on=self.executor.run_or_submit)
            self._intake = Intake(settlement.subscription, settlement.window, run=run, submit=submit, fail=fail)
        self._revocation = Revocation(settlement, self._intake, self.executor, self._router)
        self.executor.tell_returned(self._revocation.sweep)
        if isinstance(self._intake, WeightedIntake):
            self._intake.on_arrived = self._revocation.sweep

    def start(self) -> None:
        """Start the threads. No message comes before `take_messages`."""
        self._publisher.report_to(
            partial(self._settled, self._settled_traced if self._tracing else self._router.settled)
        )
        self.executor.start()
        self._router.start()

    def take_messages(self) -> None:
        """Begin to take messages."""
        if isinstance(self._settlement.subscription, Partitioned):
            self._settlement.subscription.listen(self._revocation)
        self._intake.start()

    def finish(self, deadline: float) -> None:
        """Take no more, and finish what has begun until `deadline`, in monotonic seconds."""
        self._intake.stop(left_s(deadline))
        self._router.stop()
        self.executor.stop(deadline)
        self._publisher.drain(left_s(deadline))
        self._publisher.stop()

    def ticks(self) -> signals.Ticks:
        """Return when the watchdog looked last, and how long the longest call has taken."""
        return self.executor.ticks()

    def unconfirmed(self) -> signals.Unconfirmed:
        """Return the number of publications without a confirmation, and the age of the oldest."""
        return self._publisher.pending().joined(self._router.held_alerts())

    def _take_in(self, messages: list[Message], work_on: Callable[[Sequence[Event]], None]) -> None:
        """Admit messages on one of the broker's threads."""
        try:
            work_on(self._settlement.admit(messages))
            self._revocation.sweep()  # the partition may have gone meanwhile
        except Exception as error:  # noqa: BLE001  (a fault of ours must end the run, not one connection after another)
            self._fail(error)

    def _hand_off_reader(self) -> None:
        self._intake.hand_off_reader()

    def _outcomes(self, outcomes: Sequence[Outcome]) -> None:
        try:
            self._router.outcomes(outcomes)
            self._revocation.sweep()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self._fail(OutputError(error.strerror or str(error)) if isinstance(error, OSError) else error)

    def _outcomes_traced(self, outcomes: Sequence[Outcome]) -> None:
        assert self._tracing is not None  # noqa: S101  (the only caller was chosen so)
        self._tracing.outcomes(outcomes, self._outcomes)

    def _settled(
        self,
        route: OnSettled[Published],
        confirmations: Sequence[Confirmation[Published]],
        rejections: Sequence[Rejection[Published]],
    ) -> None:
        """Have `route` take what a thread of the publisher, or of the broker, reports."""
        try:
            route(confirmations, rejections)
        except Exception as error:  # noqa: BLE001  (that thread would end, or go on without these events)
            self._fail(error)

    def _settled_traced(
        self, confirmations: Sequence[Confirmation[Published]], rejections: Sequence[Rejection[Published]]
    ) -> None:
        assert self._tracing is not None  # noqa: S101  (the only caller was chosen so)
        self._tracing.settled(confirmations, rejections, self._router.settled)
