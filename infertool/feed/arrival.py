"""An event as it came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event on a topic.

    `payload` is decoded JSON, or the bytes of a binary frame; `at` is when it came, in wall-clock seconds; `source` is
    a label of where it came from, without secrets, empty when there is but one. `text` is the payload as it was
    written, JSON in one line; empty where only its value is known.
    """

    topic: str
    event: str
    payload: Any
    at: float
    source: str = ""
    text: bytes = field(default=b"", repr=False, compare=False)


OnArrivals = Callable[[Sequence[Arrival]], None]
