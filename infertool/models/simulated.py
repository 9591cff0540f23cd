"""The reference model `sim:`: waits, sometimes fails, and returns a class and a confidence."""

from __future__ import annotations

import hashlib
import random
import struct
import time
from dataclasses import dataclass
from typing import Any

from infertool.errors import InferenceError
from infertool.models.port import Payload

_Draws = tuple[float, float, float, float]

_FOUR_UINT64 = struct.Struct("<4Q")
# A float holds 53 bits; more could round up to 1.0, which is no longer below it.
_DROPPED_BITS = 11
_STEP = 2.0**-53


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel:
    """The reference model. Times in milliseconds; rates and confidences from 0 to 1.

    Without `seed` every try is drawn anew. With it, the wait, the failure, the class and the confidence depend on the
    seed and the event's `request_id` (on the whole event when it has none) and on nothing else: neither the order of
    events nor the threads matter, and an event that fails once fails every time it is tried.
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
    """Return four numbers in [0, 1) that follow from `seed` and the event."""
    event = payload.get("request_id") or payload
    digest = hashlib.blake2b(f"{seed}\0{event!r}".encode(), digest_size=_FOUR_UINT64.size).digest()
    wait, failure, choice, confidence = ((bits >> _DROPPED_BITS) * _STEP for bits in _FOUR_UINT64.unpack(digest))
    return wait, failure, choice, confidence
