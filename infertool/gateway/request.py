"""One inference request, from its acceptance to its end."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct, field

# Header of an outcome that is from the cache of results.
CACHE: Final = "cache"


class State(StrEnum):
    """Where a request is. `STARTED`: given to the broker, whose queue is kept short."""

    QUEUED = "queued"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Return True if the request has ended."""
        return self not in {State.QUEUED, State.STARTED}


class InferRequest(Struct, frozen=True, kw_only=True):
    """A request that passed the checks of the front.

    `id` is the event id on the broker, in dead letters and on dashboards. `client` is whose limits and idempotency keys
    count. `request_id` is the caller's own name for it. Times are milliseconds since the epoch; `deadline_ms` is always
    set. `fingerprint` is the SHA-256 of what a repeat under the same idempotency key must have in common.
    """

    id: str
    client: str
    class_name: str
    model: str
    queue: str
    body: bytes
    content_type: str
    accepted_ms: int
    deadline_ms: int
    request_id: str = ""
    idempotency_key: str = ""
    fingerprint: bytes = b""
    webhook: str = ""
    traceparent: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """How a request ended. `body` is the model's result, or the failure as the consumer answers it (JSON)."""

    state: State
    body: bytes = b""
    content_type: str = "application/json"
    processing_ms: float | None = None
    finished_ms: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def is_cached(self) -> bool:
        """Return True if the result is that of an earlier, equal request."""
        return CACHE in self.headers


class Progress(Struct, frozen=True, kw_only=True):
    """What is known of a request now. `position` counts the requests ahead of it; `eta_ms` is None where unknown."""

    request: InferRequest
    state: State
    position: int | None = None
    eta_ms: int | None = None
    outcome: Outcome | None = None


class Accepted(Struct, frozen=True):
    """A request is held: its id, and whether it was already there under its idempotency key."""

    id: str
    replayed: bool = False


def document(progress: Progress, failure: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what `/v1/infer` and `/v1/requests` tell of a request beside its prediction."""
    request, outcome = progress.request, progress.outcome
    found: dict[str, Any] = {"event_id": request.id, "status": progress.state.value, "model": request.model}
    if request.request_id:
        found["request_id"] = request.request_id
    found |= {"class": request.class_name, "accepted_ms": request.accepted_ms, "deadline_ms": request.deadline_ms}
    if outcome:
        found |= {"finished_ms": outcome.finished_ms, "processing_ms": outcome.processing_ms}
        if outcome.is_cached:
            found["cached"] = True
    elif progress.position is not None:
        found |= {"position": progress.position, "eta_ms": progress.eta_ms}
    return found | (failure or {})
