"""Signals: what the consumer reports to its observers, such as statistics, logs, metrics and displays.

An observer is a function that takes a signal. It is called from several threads, must return quickly and must not
raise. Signals about events of one batch come as one signal.
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
class ModelReady:
    """The model is warm, and the consumer begins. `version` is empty where it is not known."""

    version: str


@dataclass(frozen=True, slots=True)
class Received:
    """`count` messages were received from the broker; `redelivered` of them were delivered before."""

    count: int
    redelivered: int


@dataclass(frozen=True, slots=True)
class DuplicateDelivery:
    """A redelivered event that this process already holds or has finished. It is not processed again."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Retried:
    """Attempt number `attempt` failed; the next follows after `delay_s` seconds."""

    event_id: str
    attempt: int
    delay_s: float
    error: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The model is unavailable. The event is retried after `delay_s` seconds; the attempt is not counted."""

    event_id: str
    delay_s: float
    error: str


@dataclass(frozen=True, slots=True)
class TraceIgnored:
    """The `traceparent` of an event is none, or of another version. The event goes on without it."""


@dataclass(frozen=True, slots=True)
class SpansDropped:
    """`count` spans could not be exported."""

    count: int


@dataclass(frozen=True, slots=True)
class CacheHit:
    """`count` results were taken from the cache."""

    count: int


@dataclass(frozen=True, slots=True)
class Circuit:
    """The circuit breaker of a remote model changed to `state`: closed, open or half-open.

    `reason` is why it opened; it stays open for `retry_in_s` seconds.
    """

    address: str
    state: str
    reason: str = ""
    retry_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Predicted:
    """Model calls returned results; `processing_s` is the time of each call."""

    processing_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class Failed:
    """An event failed and becomes a dead letter."""

    event_id: str
    stage: str
    error_type: str
    error: str
    attempts: int
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Pushed:
    """`count` results or alerts were passed to the publisher."""

    count: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The publisher confirmed `count` results or alerts."""

    count: int


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Events were acked after their results were confirmed. Latencies are from delivery to ack."""

    latencies_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """Events were moved to the dead-letter queue. Latencies are from delivery to the move."""

    latencies_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class Delayed:
    """`count` events were moved to retry topics, from which they come again."""

    count: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A request was acked without the model, `latency_s` after its delivery: `stage` is expired or caller_gone."""

    event_id: str
    stage: str
    latency_s: float


@dataclass(frozen=True, slots=True)
class Replied:
    """The broker has `count` replies."""

    count: int


@dataclass(frozen=True, slots=True)
class ReplyLost:
    """A reply to `reply_to` cannot be delivered. The request is settled all the same."""

    event_id: str
    reply_to: str
    reason: str


@dataclass(frozen=True, slots=True)
class HandedBack:
    """`count` events were unsettled at the stop; the broker redelivers them."""

    count: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """`count` events were unsettled when their partitions went to another consumer, which gets them."""

    count: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Phoenix asked to pause, or to resume."""

    paused: bool


@dataclass(frozen=True, slots=True)
class Tuned:
    """An adaptive setting (`concurrency`, `batch_size`, `parallel_calls`) changed to `value`."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class InProgress:
    """The consumer holds `count` unsettled events of at most `window`; `waiting` more are in the queue.

    `waiting` is None if the broker does not report it.
    """

    count: int
    window: int
    waiting: int | None


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the broker says of the queue and of the dead-letter queue; None for what it does not tell.

    `oldest_s` is the age of the message that waits longest; `enqueued` counts the messages that the queue ever got.
    """

    unacked: int | None = None
    consumers: int | None = None
    oldest_s: float | None = None
    dead_letters: int | None = None
    enqueued: int | None = None


@dataclass(frozen=True, slots=True)
class LagState:
    """How far the consumers of a queue of partitions are behind: see `infertool.brokers.partitioned.Lag`."""

    messages: int
    seconds: float | None
    lost: int
    gap: int


@dataclass(frozen=True, slots=True)
class Ages:
    """Ages of settled events, in seconds: from their producer's timestamp. One event every 10 ms is taken.

    An age is negative where the producer's clock is ahead of ours.
    """

    seconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class ConfirmTimes:
    """Seconds from publications to their confirmations: of one publication every 10 ms (`publishers.timed`)."""

    seconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class Traced:
    """An event of the trace `trace_id` was settled `latency_s` after its delivery."""

    trace_id: str
    latency_s: float


@dataclass(frozen=True, slots=True)
class Batch:
    """A call of the model for `size` events begins."""

    size: int


@dataclass(frozen=True, slots=True)
class Ticks:
    """How long ago the threads that everything depends on last ran, in seconds; None for one that does not run now.

    `call_s` is the time that the longest call of the model has taken so far; `call_limit_s` is consume.timeout_s.
    """

    reader_s: float | None
    watchdog_s: float | None
    call_s: float
    call_limit_s: float


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """`count` results and alerts are unconfirmed; the oldest was pushed `oldest_s` seconds ago."""

    count: int
    oldest_s: float

    def joined(self, other: Unconfirmed) -> Unconfirmed:
        """Return the figures of both."""
        return Unconfirmed(self.count + other.count, max(self.oldest_s, other.oldest_s))


NONE_UNCONFIRMED = Unconfirmed(0, 0.0)


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning for people."""

    text: str


Signal = (
    ConnectionChanged
    | ModelReady
    | Received
    | DuplicateDelivery
    | Retried
    | Deferred
    | TraceIgnored
    | SpansDropped
    | CacheHit
    | Circuit
    | Predicted
    | Failed
    | Pushed
    | Confirmed
    | Succeeded
    | DeadLettered
    | Delayed
    | Dropped
    | Replied
    | ReplyLost
    | HandedBack
    | Revoked
    | Flow
    | Tuned
    | InProgress
    | QueueState
    | LagState
    | Ages
    | ConfirmTimes
    | Traced
    | Batch
    | Ticks
    | Unconfirmed
    | Warned
)
Observe = Callable[[Signal], None]


def fan_out(observers: Sequence[Observe]) -> Observe:
    """Return an observer that passes each signal to all `observers`, in order."""

    def observe_all(signal: Signal) -> None:
        for observe in observers:
            observe(signal)

    return observe_all
