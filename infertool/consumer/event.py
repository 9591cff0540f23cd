"""An event in progress, its failure, and the outcome of a try."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from msgspec import Struct, field

from infertool.message import Message


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a try failed, or the event for good. `stage` is decode, infer, publish or crash.

    `hold_s` is set when the model was unavailable: the try does not count, and another follows after `hold_s` seconds.
    `traceback` has a line for each frame of the model's code, the latest call last (`infertool.models.user_code`).
    """

    stage: str
    error_type: str
    error: str
    retryable: bool = False
    hold_s: float | None = None
    traceback: str = ""


class Event(Struct, eq=False, gc=False):
    """One event from its delivery to its settlement.

    `message` is its latest delivery: a redelivery replaces it, since only the newest can be settled.
    `delivered_at` is monotonic, for latencies; `received_at` is wall-clock time. Both in seconds.
    `deaths` counts worker processes that ended over it; an event that is to be tried `alone` joins no batch.
    """

    message: Message
    event_id: str
    request_id: str | None = None
    payload: Mapping[str, Any] | None = None
    delivered_at: float = field(default_factory=time.monotonic)
    received_at: float = field(default_factory=time.time)
    attempts: int = 0
    rejections: int = 0
    first_failed_at: str = ""
    deaths: int = 0
    alone: bool = False


@dataclass(slots=True, eq=False)
class FailedEvent:
    """An event that failed for good; its alert is published, then it is moved to the dead-letter queue.

    At most `together` events share a transaction with it, fewer with each that failed; `failures` counts those in which
    it was alone. It is not tried before `not_before` (monotonic, in seconds).
    """

    event: Event
    failure: Failure
    together: int = sys.maxsize
    failures: int = 0
    not_before: float = 0.0


class Outcome(Struct, frozen=True, gc=False):
    """One try of an event: a prediction, or a failure."""

    event: Event
    prediction: Any = None
    processing_s: float = 0.0
    failure: Failure | None = None

    @property
    def is_held(self) -> bool:
        """Whether the model was unavailable."""
        return self.failure is not None and self.failure.hold_s is not None


@lru_cache(maxsize=8)  # the events of a batch share their times
def iso(seconds: float) -> str:
    """Return a wall-clock time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
