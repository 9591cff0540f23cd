"""Calls of a model with several events, and what follows when one fails: calls with parts of the batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from infertool.consumer.attempt import Event, Group, Outcome, Tried, failure_of, outcome
from infertool.errors import ModelLoadError
from infertool.models.batch_results import WrongResultsError, matched
from infertool.models.port import LoadedModel, Payload, PredictBatch
from infertool.models.user_code import end_if_forked


def batch_function(model: LoadedModel, *, asked: bool | None) -> PredictBatch | None:
    """Return the model's `predict_batch`, or None where it is not to be called; `asked` is None if it may.

    Raises `ModelLoadError` when it is asked for and there is none.
    """
    if asked is False or (asked is None and not model.batches_unasked):
        return None
    if model.predict_batch is None and asked:
        raise ModelLoadError(
            f"model {model.spec} cannot work on batches: it has no predict_batch",
            spec=model.spec,
            advice="write predict_batch(payloads), or leave out --batch-size and --target-latency",
        )
    return model.predict_batch


class BatchAttempts:
    """Callable that tries prepared events together with `predict_batch`."""

    def __init__(self, predict_batch: PredictBatch) -> None:
        self._predict_batch = predict_batch

    def __call__(self, events: Sequence[Event]) -> list[Outcome] | int:
        """Return the outcome of each event, or a size as `call_batch` does; never raises."""
        tried = call_batch(self._predict_batch, [event.payload for event in events])
        if isinstance(tried, int):
            return tried
        return [outcome(event, each) for event, each in zip(events, tried, strict=True)]


def call_batch(predict_batch: PredictBatch, payloads: list[Payload]) -> list[Tried] | int:
    """Call the model with all of `payloads`; never raises.

    If the call for several payloads failed, returns the size of the parts in which the caller calls again; it can
    report the first part's outcomes before it tries the second. After an exception these are halves, until the payload
    that the model raises for is alone. After results that cannot be matched each payload is alone: a smaller part could
    match by chance.
    """
    count = len(payloads)
    started = time.monotonic()
    try:
        results = matched(predict_batch(payloads), count)
    except BaseException as error:  # noqa: BLE001  (a model may raise anything, and sys.exit must not end a worker)
        end_if_forked()
        failure = failure_of(error)
        if count > 1 and failure.hold_s is None:
            return 1 if isinstance(error, WrongResultsError) else (count + 1) // 2
        return [Tried(None, time.monotonic() - started, failure, started)] * count
    end_if_forked()
    seconds = time.monotonic() - started
    return [_tried(result, seconds, started) for result in results]


def _tried(result: Any, seconds: float, started: float) -> Tried:
    """Return the result of one event. An exception in place of a result fails that event only."""
    if issubclass(type(result), BaseException):  # not isinstance: `__class__` of a proxy may raise
        return Tried(None, seconds, failure_of(result), started)
    return Tried(result, seconds, None, started)


def in_parts(group: Group, size: int) -> list[Group]:
    """Return a group whose call failed in parts. Decodes the events again: the model may have changed them."""
    for event in group:
        event.payload = event.codec.decode(event.body)
    return [group[start : start + size] for start in range(0, len(group), size)]
