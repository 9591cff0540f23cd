"""One try of one event: decode it, then ask the model."""

from __future__ import annotations

import time
from collections.abc import Callable

from infertool.errors import InferenceError, ModelUnavailableError
from infertool.models.guard import text_of
from infertool.models.port import Predict
from infertool.pipeline.decode import decode, printable
from infertool.pipeline.event import Event, Failure, Outcome

# Characters kept of what a model says; it goes into logs, alerts and headers.
LONGEST_ERROR = 1024


class Attempts:
    """Callable that tries an event. `on_redelivered` is told of a redelivered event before the model sees it."""

    def __init__(
        self, predict: Predict, *, max_body_bytes: int, on_redelivered: Callable[[Event], Failure | None]
    ) -> None:
        self._predict = predict
        self._max_body_bytes = max_body_bytes
        self._on_redelivered = on_redelivered

    def __call__(self, event: Event) -> Outcome:
        """Return the outcome of one try; never raises."""
        event.attempts += 1
        failure = self._prepare(event)
        if failure is not None:
            return Outcome(event, failure=failure)
        started = time.monotonic()
        try:
            prediction = self._predict(event.payload or {})
        except InferenceError as error:
            return Outcome(event, failure=_failure(error, retryable=error.retryable))
        except Exception as error:  # noqa: BLE001  (a model may raise anything; it might be transient)
            return Outcome(event, failure=_failure(error, retryable=True))
        except BaseException as error:  # noqa: BLE001  (sys.exit in a model must not end a worker)
            return Outcome(event, failure=_failure(error, retryable=False))
        return Outcome(event, prediction, time.monotonic() - started)

    def _prepare(self, event: Event) -> Failure | None:
        # Decoded for each try: a model may have changed the payload before it failed.
        poison = decode(event, self._max_body_bytes)
        if poison is None and event.message.redelivered and event.attempts == 1:
            return self._on_redelivered(event)
        return poison


def _failure(error: BaseException, *, retryable: bool) -> Failure:
    text = printable(text_of(error)[:LONGEST_ERROR])
    hold_s = error.retry_after_s if isinstance(error, ModelUnavailableError) else None
    return Failure("infer", type(error).__name__, text, retryable=retryable, hold_s=hold_s)
