"""Calling a model with many events at once, so that each fails or succeeds for itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from infertool import json_text
from infertool.errors import InferenceError, ModelLoadError, ModelUnavailableError
from infertool.models.port import LoadedModel, Payload, PredictBatch
from infertool.pipeline.attempt import Preparation, Tried, failure_of, outcome
from infertool.pipeline.event import Event, Outcome


class WrongResultsError(InferenceError):
    """`predict_batch` returned what cannot be matched with the events it was given."""

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
    """Callable that tries events together with `predict_batch`."""

    def __init__(self, predict_batch: PredictBatch, prepare: Preparation) -> None:
        self._predict_batch = predict_batch
        self._prepare = prepare

    def __call__(self, events: Sequence[Event]) -> list[Outcome]:
        """Return the outcome of each event; never raises."""
        failures = [self._prepare(event) for event in events]
        fit = [event for event, failure in zip(events, failures, strict=True) if failure is None]
        outcomes = [Outcome(event, failure=f) for event, f in zip(events, failures, strict=True) if f is not None]
        payloads = [event.payload or {} for event in fit]
        tried = call_batch(self._predict_batch, payloads, [event.message.body for event in fit])
        return outcomes + [outcome(event, each) for event, each in zip(fit, tried, strict=True)]


def call_batch(predict_batch: PredictBatch, payloads: list[Payload], bodies: Sequence[bytes]) -> list[Tried]:
    """Ask the model about all of `payloads`; never raises.

    A call that raises is repeated with each half, and so on, until who is to blame is alone. Each call gets payloads
    of its own, decoded from `bodies`, since the model may have changed them before it failed.
    """
    if not bodies:
        return []
    started = time.monotonic()
    try:
        results = _matched(predict_batch(payloads), len(bodies))
    except BaseException as error:  # noqa: BLE001  (a model may raise anything, and sys.exit must not end a worker)
        if len(bodies) == 1 or isinstance(error, ModelUnavailableError):
            return [Tried(failure=failure_of(error)) for _ in bodies]
        middle = len(bodies) // 2
        return [
            tried
            for half in (bodies[:middle], bodies[middle:])
            for tried in call_batch(predict_batch, [json_text.loads(body) for body in half], half)
        ]
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
    """Return one event's part; an exception in place of a result fails that event alone."""
    if isinstance(result, BaseException):
        return Tried(failure=failure_of(result))
    return Tried(result, seconds)
