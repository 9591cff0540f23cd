"""The model port: what a model must have, and what it may have.

A model is any callable or object with `predict(payload) -> result`, where `payload` is the decoded event (a dict)
and the result is anything JSON can hold. Optional: `predict_batch(payloads) -> results` (same order and length, with an
exception in the place of a result where one event failed), `warm_up()` (called once before the first event), `close()`.
Raise `infertool.InferenceError` to fail one event, `infertool.ModelUnavailableError` to hold it for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Payload = Mapping[str, Any]
Predict = Callable[[Payload], Any]
PredictBatch = Callable[[Sequence[Payload]], Sequence[Any]]


class OnCircuit(Protocol):
    """Who is told of each state of a remote model's circuit breaker; must be quick."""

    def __call__(self, address: str, state: str, reason: str = "", retry_in_s: float = 0.0) -> None:
        """Take note."""


def _nothing() -> None:
    """Do nothing: the default of optional hooks."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A result that was given before, for an event that is the same."""

    result: Any


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for use. `name` goes into dead letters and logs; `spec` is what the user wrote."""

    name: str
    spec: str
    predict: Predict
    predict_batch: PredictBatch | None = None
    warm_up: Callable[[], object] = _nothing
    close: Callable[[], object] = _nothing
