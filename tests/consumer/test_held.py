"""A model that is unavailable: batches are not split, and its quick refusals teach the executor nothing."""

from __future__ import annotations

from collections.abc import Sequence

from infertool.consumer.attempt import Decoding, Event, Failure, Outcome, Preparation
from infertool.consumer.batch_calls import call_batch
from infertool.consumer.batching.policy import AdaptiveBatches
from infertool.consumer.executor import Executor
from infertool.consumer.tuning import Workload
from infertool.consumer.worker import Threads
from infertool.errors import ModelUnavailableError
from infertool.models.port import LoadedModel
from tests.consumer.harness import failure_of
from tests.support.messages import message


def test_the_whole_batch_is_held_with_one_call() -> None:
    calls: list[int] = []

    def predict_batch(payloads: Sequence[object]) -> list[object]:
        calls.append(len(payloads))
        raise ModelUnavailableError("away", retry_after_s=3.0)

    tried = call_batch(predict_batch, [{}, {}, {}])
    assert isinstance(tried, list)
    assert [failure_of(each).hold_s for each in tried] == [3.0] * 3
    assert calls == [3]


def test_one_event_of_a_batch_may_be_held() -> None:
    answers = [1, ModelUnavailableError("away", retry_after_s=3.0)]
    tried = call_batch(lambda _payloads: answers, [{}, {}])
    assert isinstance(tried, list)
    fine, held = tried
    assert (fine.prediction, fine.failure, failure_of(held).hold_s) == (1, None, 3.0)


def test_held_events_tune_nothing_and_stay_fit_for_batches() -> None:
    told: list[object] = []
    batches = AdaptiveBatches(64)
    executor = Executor(
        Threads(LoadedModel("test", "test", dict), in_batches=False),
        Preparation(Decoding(1000), lambda _event: None),
        Workload(1, 9.0, batches=batches),
        on_outcomes=told.append,
        on_tuned=lambda *change: told.append(change),
        on_stuck=lambda: told.append("stuck"),
        on_fatal=told.append,
    )
    before = (executor._queue._backlog.mean_s, batches.size)
    event = Event(message(), "e")
    outcomes = [Outcome(event, failure=Failure("infer", "ModelUnavailableError", "away", retryable=True, hold_s=1.0))]
    worker = executor._new_worker()
    assert worker
    executor._host.call_ended(worker, outcomes * 4)
    executor._host.done(outcomes * 4, 1e-6)
    assert (executor._queue._backlog.mean_s, batches.size) == before
    assert not event.alone
    assert told == [outcomes * 4]
