"""The model port: the required and the optional methods of a model.

A model is a callable, or an object with `predict(payload) -> result`. `payload` is the decoded event: a dict, or with
`consume.reply` any value. The result is any value that JSON can hold, or MessagePack where the event is in that.
Optional: `predict_batch(payloads) -> results` (same order and length; an exception in place of a failed event's
result), `warm_up()` (called once before the first event), `close()`. Raise `infertool.InferenceError` to fail one
event, `infertool.ModelUnavailableError` to have it retried later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# A dict, except with `consume.reply`.
Payload = Any
Predict = Callable[[Payload], Any]
PredictBatch = Callable[[Sequence[Payload]], Sequence[Any]]


class OnCircuit(Protocol):
    """Receives each state of a remote model's circuit breaker. Must return quickly."""

    def __call__(self, address: str, state: str, reason: str = "", retry_in_s: float = 0.0) -> None:
        """Handle the circuit's new state."""


def _nothing() -> None:
    """Do nothing: the default of optional hooks."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A result from the cache."""

    result: Any


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for use. `name` goes into dead letters and logs; `spec` is as the user wrote it."""

    name: str
    spec: str
    predict: Predict
    predict_batch: PredictBatch | None = None
    warm_up: Callable[[], object] = _nothing
    close: Callable[[], object] = _nothing
