"""The settings tree: every option, its default, and its meaning in the string under it.

Names ending in `_s` are seconds, in `_bytes` bytes. The strings are read by `infertool config init`.
What may hold a password (URLs, join parameters) is left out of `repr`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from infertool.secret import Secret

ConfirmMode = Literal["auto", "reply", "echo", "barrier", "none"]
PublishMode = Literal["phoenix", "stdout", "none"]
Concurrency = int | Literal["auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Where events come from."""

    url: str = field(default="stomp://localhost:61613", repr=False)
    """Scheme stomp or stomp+ssl; several hosts for failover: stomp://a:61613,b:61613."""
    user: str = ""
    """Login. ACTIVEMQ_USER sets it, too; so does the URL's user part."""
    password: Secret = field(default_factory=Secret)
    """Passcode. ACTIVEMQ_PASSWORD sets it, too. Better: password_file."""
    password_file: str = ""
    """File whose first line is the passcode."""
    queue: str = "/queue/ai.events.raw"
    """The queue to consume: NAME or /queue/NAME; a list with commas, or a pattern like ai.*, is possible."""
    heartbeat_s: float = 10.0
    """Heartbeat promised and asked for, each way; 0 switches heartbeats off."""
    connect_timeout_s: float = 10.0
    """Longest wait for a TCP connection, the TLS handshake and CONNECTED, for each host."""
    receipt_timeout_s: float = 15.0
    """Longest wait for a receipt: a confirmed send, a transaction, the disconnect."""
    reconnect_base_s: float = 0.1
    """Full-jitter backoff between connection attempts: the first ceiling."""
    reconnect_max_s: float = 5.0
    """Full-jitter backoff between connection attempts: the largest ceiling."""
    tls_verify: bool = True
    """Check the broker's certificate and host name (stomp+ssl)."""
    tls_ca_file: str = ""
    """PEM file of the authorities to trust instead of the system's."""
    tls_cert_file: str = ""
    """PEM file of the client certificate."""
    tls_key_file: str = ""
    """PEM file of the client certificate's key; empty when it is in tls_cert_file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeSettings:
    """How events are worked on."""

    executor: Literal["threads", "processes"] = "threads"
    """threads, for models that wait or release the interpreter lock; processes, for those that compute or crash."""
    concurrency: Concurrency = 16
    """Calls of the model at the same time, on threads; auto finds it from latency and errors."""
    max_concurrency: int = 128
    """Most calls at the same time that concurrency auto tries."""
    workers: int = 0
    """Worker processes of executor processes, each with one call at a time; 0 means one a core."""
    max_tasks_per_worker: int = 0
    """Events after which a worker process is replaced; 0 means never."""
    worker_memory_bytes: int = 0
    """A worker process that holds more memory after an event is replaced; 0 means no limit."""
    batch_size: int = 1
    """Most events in one call of predict_batch; 1 calls predict."""
    batch_wait_s: float = 0.01
    """Longest time an event waits for its batch to fill."""
    target_latency_s: float = 0.0
    """Adapt the size of batches and their wait so that both together take no longer; 0 leaves them as they are set."""
    processes: int = 1
    """Consumer processes, each with connections and a window of its own, under one supervisor."""
    window: int = 0
    """Unsettled messages held at most; 0 means 200, or what the concurrency or batched pushes need, if that is more."""
    max_attempts: int = 3
    """Tries of an event before it is dead-lettered."""
    retry_base_s: float = 0.2
    """Full-jitter backoff between tries of an event: the first ceiling."""
    retry_max_s: float = 10.0
    """Full-jitter backoff between tries of an event: the largest ceiling."""
    timeout_s: float = 30.0
    """Longest time for one try of the model."""
    stop_deadline_s: float = 20.0
    """Longest time a graceful stop waits for what is in flight; the rest goes back to the broker."""
    max_body_bytes: int = 16_777_216
    """A larger body is dead-lettered without decoding it."""
    crash_guard: bool = True
    """Dead-letter an event that was in work when the process died twice."""
    state_dir: str = ""
    """Folder of the crash guard's notes; empty means the user's state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What works on events."""

    spec: str = field(default="sim:", repr=False)
    """sim:, module:callable, path/to/file.py:callable, an installed name, onnx:path/to/file.onnx, or http(s)://host/path."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Where an ONNX or KServe model's inputs are in an event: X = "features.values"; without it, under their names."""
    cache: str = ""
    """Keep results for events that are the same: how many, and for how long, like 10000:5m. Empty: no cache."""
    cache_ignore: list[str] = field(default_factory=lambda: ["event_id", "request_id", "sent_at", "traceparent"])
    """Fields that may differ between events that are the same."""
    token: Secret = field(default_factory=Secret)
    """Sent to a model server as a bearer token. Better: token_file."""
    token_file: str = ""
    """File whose first line is the token."""
    connect_timeout_s: float = 3.0
    """Longest wait for a connection to a model server, TLS included."""
    timeout_s: float = 20.0
    """Longest time for a model server's answer; keep it below consume.timeout_s."""
    max_response_bytes: int = 16_777_216
    """A larger answer of a model server fails its event."""
    circuit_failures: int = 5
    """Failures of a model server in a row that open its circuit: events wait then, they do not fail."""
    circuit_wait_s: float = 5.0
    """Time until an open circuit lets one event through to see whether the model server is back."""
    tls_verify: bool = True
    """Check the model server's certificate and host name (https)."""
    tls_ca_file: str = ""
    """PEM file of the authorities to trust instead of the system's."""
    tls_cert_file: str = ""
    """PEM file of the client certificate."""
    tls_key_file: str = ""
    """PEM file of the client certificate's key; empty when it is in tls_cert_file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings:
    """What is sent on."""

    mode: PublishMode = "phoenix"
    """phoenix; stdout prints outcomes as JSON lines; none drops them."""
    include_payload: bool = True
    """Put the event into the result as original_payload."""
    batch: int = 1
    """Most results in one push, a new_results; 1 pushes each as a new_result."""
    max_bytes: int = 1_000_000
    """Largest push; a larger one loses its original_payload, then its prediction, and is marked truncated."""
    max_refusals: int = 3
    """Refusals of one payload by Phoenix before the event is dead-lettered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoenixSettings:
    """Where results go."""

    url: str = field(default="ws://localhost:4000/socket/websocket", repr=False)
    """Scheme ws or wss; several hosts for failover: ws://a:4000,b:4000/socket/websocket."""
    token: Secret = field(default_factory=Secret)
    """Socket token. PHOENIX_SERVICE_TOKEN sets it, too. Better: token_file."""
    token_file: str = ""
    """File whose first line is the token."""
    token_in: Literal["params", "protocol"] = "params"  # noqa: S105 - a place, not a token
    """Send the token as the URL parameter `token`, or in Sec-WebSocket-Protocol (Phoenix 1.8 auth_token)."""
    origin: str = ""
    """Origin header; empty sends none, which check_origin accepts."""
    topic: str = "service:inference"
    """The channel that takes results."""
    join_params: dict[str, Any] = field(default_factory=dict, repr=False)
    """Payload of the join."""
    join_token: bool = True
    """Put the token into the join's payload, as `token`, too: many channels check it there."""
    result_topic: str = "public:results"
    """Where the server broadcasts results; the confirm mode echo listens here."""
    alert_topic: str = "public:alerts"
    """Where the server broadcasts failures; the confirm mode echo listens here."""
    confirm: ConfirmMode = "auto"
    """What proves a push: the channel's reply, our own event coming back, a heartbeat behind it, nothing, or auto."""
    window: int = 256
    """Unconfirmed pushes at most."""
    push_timeout_s: float = 10.0
    """Longest wait for the proof of a push before it is pushed again."""
    connect_timeout_s: float = 10.0
    """Longest wait for TCP, TLS and the WebSocket handshake, and for a join's reply."""
    heartbeat_s: float = 30.0
    """Heartbeat interval; an unanswered one ends the connection."""
    tls_verify: bool = True
    """Check the server's certificate and host name (wss)."""
    tls_ca_file: str = ""
    """PEM file of the authorities to trust instead of the system's."""
    tls_cert_file: str = ""
    """PEM file of the client certificate."""
    tls_key_file: str = ""
    """PEM file of the client certificate's key; empty when it is in tls_cert_file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSettings:
    """Where failed events go."""

    queue: str = "/queue/ai.events.dlq"
    """The dead-letter queue: one, which broker.queue does not cover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """What is told while it runs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    log_format: Literal["text", "json"] = "text"
    """text for people, json for machines."""
    status_interval_s: float = 10.0
    """Time between status lines where standard error is no terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """How `infertool watch` looks and behaves."""

    keep: int = 10_000
    """Results, and failures and alerts, that are kept each; older ones are dropped, and counted."""
    theme: Literal["dark", "light"] = "dark"
    """Colours. NO_COLOR switches them off."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Other keys for actions, one or a list each, such as {pause = "p", quit = ["q", "ctrl+x"]}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree."""

    broker: BrokerSettings = field(default_factory=BrokerSettings)
    consume: ConsumeSettings = field(default_factory=ConsumeSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    phoenix: PhoenixSettings = field(default_factory=PhoenixSettings)
    deadletter: DeadLetterSettings = field(default_factory=DeadLetterSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
