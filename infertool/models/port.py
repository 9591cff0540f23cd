"""The model port: the required and the optional methods of a model.

A model is a callable, or an object with `predict(payload) -> result`. `payload` is the decoded event: a dict, or with
`consume.reply` any value. The result is any value that JSON can hold, or MessagePack where the event is in that.
Optional: `predict_batch(payloads) -> results` (same order and length; an exception in place of a failed event's
result), `warm_up()` (called once before the first event), `close()`, and `version`, a text or a number. The functions
may be async. Raise `infertool.InferenceError` to fail one event, `infertool.ModelUnavailableError` to have it retried
later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from infertool.models.tensors import Described

# Characters of a model's version.
_LONGEST_VERSION: Final = 100

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


def _unknown() -> str:
    """Return no version: the default."""
    return ""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for use. `name` goes into dead letters and logs; `spec` is as the user wrote it.

    `inputs` are its tensors, where the model itself describes them.
    `batches_unasked`: batches are made of its events where the size is measured, without anyone who asked for batches.
    `version` is asked once, after the warm-up; it returns "" where no version is known.
    """

    name: str
    spec: str
    predict: Predict
    predict_batch: PredictBatch | None = None
    warm_up: Callable[[], object] = _nothing
    close: Callable[[], object] = _nothing
    inputs: tuple[Described, ...] = ()
    version: Callable[[], str] = _unknown
    batches_unasked: bool = True


def version_text(value: object) -> str:
    """Return a version for headers, labels and documents: a text or a number in one line; "" for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return " ".join(str(value).split())[:_LONGEST_VERSION].encode("utf-8", "replace").decode()
