"""The stats document: what a running consumer says of itself at one moment.

`/stats` shows it as JSON, alert rules are expressions over it, and `watch --stats-url` reads it. None means that the
figure is not known: the broker does not tell it, or nothing has happened from which it could be computed. Rates and
latencies are of the last minute unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# Span of rates and latencies. Seconds.
SPAN_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """The queue that is consumed: messages that no consumer holds, and those that consumers hold."""

    name: str
    depth: int | None = None
    """Messages that wait for a consumer."""
    unacked: int | None = None
    """Messages that consumers hold unacknowledged."""
    consumers: int | None = None
    """Subscriptions to the queue, of all processes and machines."""
    oldest_s: float | None = None
    """Age of the message that waits longest; 0 where none waits. Seconds."""
    arrival_rate: float | None = None
    """Messages a second that come to the queue."""
    lag: int | None = None
    """Messages that the consumers have not settled, of a broker that keeps those that they have (Kafka)."""
    lag_s: float | None = None
    """Age of the oldest of them; 0 where there is none. Seconds."""
    lost: int | None = None
    """Messages that such a broker deleted before they were settled, since the consumer began."""
    gap: int | None = None
    """Largest distance from a partition's oldest unsettled message to its newest settled one, in offsets."""
    drain_s: float | None = None
    """Time until the queue is empty at the present rate: depth / settled rate. Seconds; None at a rate of zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterStats:
    """The dead-letter queue."""

    name: str
    depth: int | None = None
    """Dead letters in the queue."""
    rate: float = 0.0
    """Dead letters a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStats:
    """Events a second."""

    received: float = 0.0
    settled: float = 0.0
    failed: float = 0.0
    dead_lettered: float = 0.0
    retried: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Quantiles of times in milliseconds; None without samples."""

    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats:
    """Latencies of events and of their parts."""

    event: Quantiles = Quantiles()
    """From delivery to settlement."""
    inference: Quantiles = Quantiles()
    """Calls of the model."""
    age: Quantiles = Quantiles()
    """From the time that the producer sent the message to its settlement."""
    confirm: Quantiles = Quantiles()
    """From a push to its confirmation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorStats:
    """Share of settled events that failed, and the number of settled events, over spans that end now."""

    ratio_5m: float | None = None
    ratio_30m: float | None = None
    ratio_1h: float | None = None
    ratio_6h: float | None = None
    events_5m: int = 0
    events_30m: int = 0
    events_1h: int = 0
    events_6h: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStats:
    """The model."""

    name: str
    version: str = ""
    circuit: str = "none"
    """The circuit breaker of a remote model: closed, half-open or open; none without one."""
    batch_size: int | None = None
    """The largest batch that pays, as measured, of the process with the largest; None where it does not adapt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStats:
    """What the consumer's processes use, worker processes included."""

    cpu: float | None = None
    """Cores in use."""
    cpu_limit: float = 1.0
    """Cores that may be used."""
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    """Limit of the control group; None without one."""
    open_files: int | None = None
    """Open files of the process that is nearest to its limit."""
    open_files_limit: int | None = None
    disk_free_bytes: int | None = None
    """Free space of the file system of the state folder."""
    disk_free: float | None = None
    """Its share of the whole, from 0 to 1."""
    clock_skew_s: float | None = None
    """How far the clock is behind that of the producers: at least this much, from messages of the future. Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStats:
    """The connection to one side. With several processes it is up when it is up in each of them."""

    up: bool | None = None
    """None where there is no such connection."""
    state: str = "none"
    since_s: float | None = None
    """Seconds since `up` changed."""
    reconnects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsStats:
    """The connections of the consumer."""

    broker: ConnectionStats = ConnectionStats()
    phoenix: ConnectionStats = ConnectionStats()


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowStats:
    """What is under way."""

    in_progress: int = 0
    limit: int = 0
    unconfirmed: int = 0
    """Results and alerts without a confirmation."""
    oldest_push_s: float = 0.0
    paused: bool = False
    """Phoenix asks to pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressStats:
    """Whether anything moves."""

    idle_s: float = 0.0
    """Seconds since a message was received or an event settled."""
    stuck: bool = False
    """Messages wait, the window is open, connections are up, and nothing was received for telemetry.stuck_after_s; or
    the window is full, and nothing was settled for that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStats:
    """The state of one alert rule."""

    rule: str
    state: str
    severity: str
    value: float | None = None
    since: float | None = None
    """Unix time at which the rule entered the state. Seconds."""
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsDocument:
    """All of it. `time` and `started` are Unix times in seconds."""

    time: float
    started: float
    uptime_s: float
    version: str
    consumer: str
    queue: QueueStats
    dlq: DeadLetterStats
    model: ModelStats
    processes: int = 1
    rate: RateStats = RateStats()
    latency: LatencyStats = LatencyStats()
    errors: ErrorStats = ErrorStats()
    process: ProcessStats = ProcessStats()
    connections: ConnectionsStats = ConnectionsStats()
    window: WindowStats = WindowStats()
    progress: ProgressStats = ProgressStats()
    counts: dict[str, int] = field(default_factory=dict)
    """Totals since the start, by name; see docs/metrics.md."""
    alerts: tuple[AlertStats, ...] = ()
