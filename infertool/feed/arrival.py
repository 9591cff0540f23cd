"""An event as it came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event on a topic.

    `payload` is decoded JSON, or the bytes of a binary frame; `at` is when it came, in wall-clock seconds; `source` is
    a label of where it came from, without secrets, empty when there is but one.
    """

    topic: str
    event: str
    payload: Any
    at: float
    source: str = ""


OnArrivals = Callable[[Sequence[Arrival]], None]
