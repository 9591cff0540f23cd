"""The simulated model `sim:`: it waits, sometimes fails, and returns a class and a confidence."""

from __future__ import annotations

import hashlib
import math
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from infertool.errors import InferenceError, ModelLoadError
from infertool.models.port import LoadedModel, Payload
from infertool.text.input import did_you_mean

_Draws = tuple[float, float, float, float]

_FOUR_UINT64 = struct.Struct("<4Q")
# A float holds 53 bits; more could round up to 1.0.
_DROPPED_BITS = 11
_STEP = 2.0**-53


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel:
    """The simulated model. Times in milliseconds; rates and confidences from 0 to 1.

    Without `seed` each attempt is random. With it, wait, failure, class and confidence depend only on the seed and the
    event's `request_id` (the whole event if it has none): neither on the order of events nor on threads, and an event
    that fails once fails at every attempt.
    """

    min_ms: float = 100.0
    max_ms: float = 500.0
    failure_rate: float = 0.05
    retryable: bool = True
    classes: tuple[str, ...] = ("A", "B", "C")
    min_confidence: float = 0.7
    max_confidence: float = 0.99
    seed: str | None = None

    def predict(self, payload: Payload) -> dict[str, Any]:
        """Wait, then return `{"class": ..., "confidence": ...}` or raise `InferenceError`."""
        wait, failure, choice, confidence = _anew() if self.seed is None else _seeded(self.seed, payload)
        if self.max_ms:
            time.sleep(_between(self.min_ms, self.max_ms, wait) / 1000)
        if failure < self.failure_rate:
            raise InferenceError("simulated failure", retryable=self.retryable)
        return {
            "class": self.classes[int(choice * len(self.classes))],
            "confidence": round(_between(self.min_confidence, self.max_confidence, confidence), 4),
        }


def _between(low: float, high: float, position: float) -> float:
    return low + position * (high - low)


def _anew() -> _Draws:
    draw = random.random
    return draw(), draw(), draw(), draw()


def _seeded(seed: str, payload: Payload) -> _Draws:
    """Return four numbers in [0, 1) derived from `seed` and the event."""
    event = payload.get("request_id") or payload
    digest = hashlib.blake2b(f"{seed}\0{event!r}".encode(), digest_size=_FOUR_UINT64.size).digest()
    wait, failure, choice, confidence = ((bits >> _DROPPED_BITS) * _STEP for bits in _FOUR_UINT64.unpack(digest))
    return wait, failure, choice, confidence


SCHEME = "sim:"


def simulated(spec: str) -> LoadedModel:
    """Build the simulated model that `spec` describes. Raises `ModelLoadError`."""
    query = spec.removeprefix(SCHEME)
    if query and not query.startswith("?"):
        raise _error(spec, f"{query!r} is no parameter list", "write it like sim:?min_ms=0&max_ms=0")
    values = dict(_read(spec, name, text) for name, text in parse_qsl(query[1:], keep_blank_values=True))
    model = SimulatedModel(**values)
    _check(spec, model)
    return LoadedModel(name="sim", spec=spec, predict=model.predict)


def _read(spec: str, name: str, text: str) -> tuple[str, Any]:
    if name not in _READERS:
        known = f"known: {', '.join(_READERS)}"
        advice = " ".join(filter(None, (did_you_mean(name, _READERS), known)))
        raise _error(spec, f"unknown parameter {name!r}", advice)
    reader, expected = _READERS[name]
    try:
        return name, reader(text)
    except (ValueError, KeyError) as error:
        raise _error(spec, f"{name} is {text!r}", f"expected {expected}") from error


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _rate(text: str) -> float:
    value = _number(text)
    if value > 1:
        raise ValueError(text)
    return value


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(names):
        raise ValueError(text)
    return names


_MILLISECONDS = "milliseconds, 0 or more"
_RATE = "a number from 0 to 1"
_READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "min_ms": (_number, _MILLISECONDS),
    "max_ms": (_number, _MILLISECONDS),
    "failure_rate": (_rate, _RATE),
    "retryable": (_flag, "true or false"),
    "classes": (_names, "names with commas between them"),
    "min_confidence": (_rate, _RATE),
    "max_confidence": (_rate, _RATE),
    "seed": (str, "any text"),
}


def _check(spec: str, model: SimulatedModel) -> None:
    for unit in ("ms", "confidence"):
        low, high = getattr(model, f"min_{unit}"), getattr(model, f"max_{unit}")
        if low > high:
            what = f"min_{unit}={low:g} is more than max_{unit}={high:g}"
            raise _error(spec, what, f"give both min_{unit} and max_{unit}")


def _error(spec: str, what: str, advice: str) -> ModelLoadError:
    return ModelLoadError(f"model {spec}: {what}", spec=spec, advice=advice)
