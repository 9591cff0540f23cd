"""How the pipeline speaks: it tells an `Observe` what happens. Statistics, logs, metrics and displays are observers.

Observers are called from several threads, with batches where events come in batches; they must be quick and not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infertool.net.connection_state import ConnectionEvent


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The connection to `side` ("broker" or "phoenix") changed."""

    side: str
    event: ConnectionEvent


@dataclass(frozen=True, slots=True)
class Received:
    """`count` deliveries were taken from the broker, `redelivered` of them not for the first time."""

    count: int
    redelivered: int


@dataclass(frozen=True, slots=True)
class DuplicateDelivery:
    """A redelivered event is one this process already holds or has finished; it is not worked on again."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Retried:
    """Try number `attempt` failed; another follows after `delay_s` seconds."""

    event_id: str
    attempt: int
    delay_s: float
    error: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The model cannot answer now; the event is tried again after `delay_s` seconds, and the try is not counted."""

    event_id: str
    delay_s: float
    error: str


@dataclass(frozen=True, slots=True)
class CacheHit:
    """`count` results were taken from the cache."""

    count: int


@dataclass(frozen=True, slots=True)
class Circuit:
    """The circuit breaker of a remote model changed: closed, open or half-open.

    `reason` says why it opened, and `retry_in_s` for how many seconds it stays so.
    """

    address: str
    state: str
    reason: str = ""
    retry_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Predicted:
    """Model calls returned a result, each after so many seconds."""

    processing_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class Failed:
    """An event will become a dead letter."""

    event_id: str
    stage: str
    error_type: str
    error: str
    attempts: int
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Pushed:
    """`count` results or alerts were handed to the publisher."""

    count: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """`count` results or alerts were proved to have arrived."""

    count: int


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Events were acked after their results were confirmed, each so many seconds after its delivery."""

    latencies_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """Events were moved to the dead-letter queue, each so many seconds after its delivery."""

    latencies_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class HandedBack:
    """`count` events were left unsettled at the stop; the broker delivers them again."""

    count: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Phoenix asked for a pause, or to resume."""

    paused: bool


@dataclass(frozen=True, slots=True)
class Tuned:
    """A number that adapts (`concurrency`, `batch_size`) has changed to `value`."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class InProgress:
    """The consumer holds `count` unsettled events of at most `window`; `waiting` more are in the queue.

    `waiting` is None when the broker does not tell.
    """

    count: int
    window: int
    waiting: int | None


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """`count` results and alerts have no proof yet; the oldest waits since `oldest_s` seconds."""

    count: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Warned:
    """Something a person should know."""

    text: str


Signal = (
    ConnectionChanged
    | Received
    | DuplicateDelivery
    | Retried
    | Deferred
    | CacheHit
    | Circuit
    | Predicted
    | Failed
    | Pushed
    | Confirmed
    | Succeeded
    | DeadLettered
    | HandedBack
    | Flow
    | Tuned
    | InProgress
    | Unconfirmed
    | Warned
)
Observe = Callable[[Signal], None]


def fan_out(observers: Sequence[Observe]) -> Observe:
    """Return an observer that tells each of `observers` in order."""

    def tell(signal: Signal) -> None:
        for observe in observers:
            observe(signal)

    return tell
