"""Calls of `predict_batch`: several events in one call, and an outcome for each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from infertool.consumer.attempt import Tried, failure_of, outcome
from infertool.consumer.event import Event, Outcome
from infertool.errors import InferenceError, ModelLoadError, ModelUnavailableError
from infertool.models.port import LoadedModel, Payload, PredictBatch
from infertool.models.user_code import end_if_forked


class WrongResultsError(InferenceError):
    """The results of `predict_batch` cannot be matched with the events it was given."""

    def __init__(self, what: str) -> None:
        super().__init__(f"predict_batch returned {what}", retryable=False)


def batch_function(model: LoadedModel) -> PredictBatch:
    """Return the model's `predict_batch`. Raises `ModelLoadError` when it has none."""
    if model.predict_batch is None:
        raise ModelLoadError(
            f"model {model.spec} cannot work on batches: it has no predict_batch",
            spec=model.spec,
            advice="write predict_batch(payloads), or leave consume.batch_size at 1",
        )
    return model.predict_batch


class BatchAttempts:
    """Callable that tries prepared events together with `predict_batch`."""

    def __init__(self, predict_batch: PredictBatch) -> None:
        self._predict_batch = predict_batch

    def __call__(self, events: Sequence[Event]) -> list[Outcome] | None:
        """Return the outcome of each event, or None as `call_batch` does; never raises."""
        tried = call_batch(self._predict_batch, [event.payload or {} for event in events])
        return None if tried is None else [outcome(event, each) for event, each in zip(events, tried, strict=True)]


def call_batch(predict_batch: PredictBatch, payloads: list[Payload]) -> list[Tried] | None:
    """Call the model with all of `payloads`; never raises.

    Returns None if a call for several payloads raised. The caller then calls again with each half, until the payload
    that the model raises for is alone; it can report the first half's outcomes before it tries the second.
    """
    count = len(payloads)
    started = time.monotonic()
    try:
        results = _matched(predict_batch(payloads), count)
    except BaseException as error:  # noqa: BLE001  (a model may raise anything, and sys.exit must not end a worker)
        end_if_forked()
        if count > 1 and not isinstance(error, ModelUnavailableError):
            return None
        return [Tried(failure=failure_of(error))] * count
    end_if_forked()
    seconds = time.monotonic() - started
    return [_tried(result, seconds) for result in results]


def _matched(results: Any, count: int) -> list[Any]:
    if isinstance(results, Mapping | str | bytes | None):
        raise WrongResultsError(f"{type(results).__name__}, not a list of results")
    found = list(results)
    if len(found) != count:
        raise WrongResultsError(f"{len(found)} results for {count} events")
    return found


def _tried(result: Any, seconds: float) -> Tried:
    """Return the result of one event. An exception in place of a result fails that event only."""
    if isinstance(result, BaseException):
        return Tried(failure=failure_of(result))
    return Tried(result, seconds)
