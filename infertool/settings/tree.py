"""The settings tree: every option with its default, and its meaning in the string under it.

Names ending in `_s` are seconds, those in `_bytes` are bytes. `infertool config init` writes the strings as comments.
Values that may hold a password (URLs, join parameters) are excluded from `repr`.
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
    """The broker that delivers events."""

    url: str = field(default="stomp://localhost:61613", repr=False)
    """Scheme stomp, stomp+ssl, amqp or amqps; several hosts for failover: stomp://a:61613,b:61613. A path: vhost."""
    user: str = ""
    """Login. Also set by ACTIVEMQ_USER, or by the URL's user part."""
    password: Secret = field(default_factory=Secret)
    """Passcode. Also set by ACTIVEMQ_PASSWORD. Better: password_file."""
    password_file: str = ""
    """File whose first line is the passcode."""
    declare: bool = False
    """Create missing queues (amqp). Without it, a missing queue is an error; existing queues are never changed."""
    queue_type: Literal["classic", "quorum"] = "quorum"
    """The type of queues that are created (amqp)."""
    management_url: str = ""
    """RabbitMQ's management API, http://HOST:15672, for what AMQP does not tell (amqp)."""
    counted_browse: bool = False
    """Look at quorum queues that have a delivery limit: each look counts as a delivery (amqp). See peek-dlq --force."""
    queue: str = "/queue/ai.events.raw"
    """The queue to consume: NAME or /queue/NAME; a list with commas, or a pattern like ai.*, is possible."""
    heartbeat_s: float = 10.0
    """Heartbeat interval in both directions; 0 disables heartbeats."""
    connect_timeout_s: float = 10.0
    """Maximum time for TCP, the TLS handshake and CONNECTED, for each host."""
    receipt_timeout_s: float = 15.0
    """Maximum wait for a receipt: of a confirmed send, a transaction, the disconnect."""
    reconnect_base_s: float = 0.1
    """Full-jitter backoff between connection attempts: maximum of the first wait."""
    reconnect_max_s: float = 5.0
    """Full-jitter backoff between connection attempts: maximum of any wait."""
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
    """How events are processed."""

    executor: Literal["threads", "processes"] = "threads"
    """threads for models that wait or release the interpreter lock; processes for models that compute or may crash."""
    concurrency: Concurrency = 16
    """Concurrent model calls, on threads; auto adapts to latency and errors."""
    max_concurrency: int = 128
    """Maximum of concurrency auto."""
    workers: int = 0
    """Worker processes of executor processes, each with one call at a time; 0 means one per core."""
    max_tasks_per_worker: int = 0
    """A worker process is replaced after this many events; 0 means never."""
    worker_memory_bytes: int = 0
    """A worker process that uses more memory after an event is replaced; 0 means no limit."""
    batch_size: int = 1
    """Maximum events in one call of predict_batch; 1 calls predict."""
    batch_wait_s: float = 0.01
    """Maximum time an event waits for its batch to fill."""
    target_latency_s: float = 0.0
    """Adapt batch size and batch wait so that a batch with its wait takes at most this time; 0 does not adapt."""
    processes: int = 1
    """Consumer processes under one supervisor, each with its own connections and window."""
    window: int = 0
    """Maximum of unsettled messages; 0 means 200, or more if the concurrency or batched pushes need more; with reply,
    as many as can be in progress."""
    reply: bool = False
    """Send each result to the reply address of its request, with its correlation id."""
    reply_form: Literal["result", "outcome"] = "result"
    """The body of a reply: the model's result itself, or the whole document that is published."""
    max_attempts: int = 3
    """Attempts before an event is dead-lettered."""
    retry_base_s: float = 0.2
    """Full-jitter backoff between attempts of an event: maximum of the first wait."""
    retry_max_s: float = 10.0
    """Full-jitter backoff between attempts of an event: maximum of any wait."""
    timeout_s: float = 30.0
    """Maximum time for one model call."""
    stop_deadline_s: float = 20.0
    """Maximum time a graceful stop waits for events in flight; the rest goes back to the broker."""
    max_body_bytes: int = 16_777_216
    """Maximum body size; a larger one is dead-lettered undecoded."""
    crash_guard: bool = True
    """Dead-letter an event that was in progress at two crashes of the process."""
    state_dir: str = ""
    """Folder for the crash guard's files; empty means the user's state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The model that processes events."""

    spec: str = field(default="sim:", repr=False)
    """sim:, module:callable, path/to/file.py:callable, an installed name, onnx:path/to/file.onnx, or http(s)://host/path."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Paths to an ONNX or KServe model's inputs in an event: X = "features.values"; default: the inputs' names."""
    cache: str = ""
    """Cache of results for equal events: number and lifetime, such as 10000:5m. Empty: no cache."""
    cache_ignore: list[str] = field(default_factory=lambda: ["event_id", "request_id", "sent_at", "traceparent"])
    """Fields that are ignored when events are compared."""
    token: Secret = field(default_factory=Secret)
    """Bearer token for a model server. Better: token_file."""
    token_file: str = ""
    """File whose first line is the token."""
    connect_timeout_s: float = 3.0
    """Maximum time to connect to a model server, TLS included."""
    timeout_s: float = 20.0
    """Maximum time for a model server's answer; keep it below consume.timeout_s."""
    max_response_bytes: int = 16_777_216
    """Maximum size of a model server's answer; a larger one fails its event."""
    circuit_failures: int = 5
    """Consecutive failures of a model server that open its circuit; events then wait instead of failing."""
    circuit_wait_s: float = 5.0
    """Time until an open circuit lets one event through to probe the model server."""
    tls_verify: bool = True
    """Check the model server's certificate and host name (https)."""
    tls_ca_file: str = ""
    """PEM file of the authorities to trust instead of the system's."""
    tls_cert_file: str = ""
    """PEM file of the client certificate."""
    tls_key_file: str = ""
    """PEM file of the client certificate's key; empty when it is in tls_cert_file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSettings:
    """What events are made of."""

    format: Literal["json", "msgpack"] = "json"
    """The codec of events whose content type names none; application/json and application/msgpack do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings:
    """The publisher of results and alerts."""

    mode: PublishMode = "phoenix"
    """phoenix; stdout prints outcomes as JSON lines; none drops them."""
    include_payload: bool = True
    """Put the event into the result as original_payload."""
    batch: int = 1
    """Maximum results in one push (new_results); 1 pushes each as a new_result."""
    max_bytes: int = 1_000_000
    """Maximum size of a push; a larger one loses its original_payload, then its prediction, and is marked truncated."""
    max_refusals: int = 3
    """Rejections of one payload by Phoenix before the event is dead-lettered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoenixSettings:
    """The Phoenix server that takes results."""

    url: str = field(default="ws://localhost:4000/socket/websocket", repr=False)
    """Scheme ws or wss; several hosts for failover: ws://a:4000,b:4000/socket/websocket."""
    token: Secret = field(default_factory=Secret)
    """Socket token. Also set by PHOENIX_SERVICE_TOKEN. Better: token_file."""
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
    """Also put the token into the join's payload, as `token`: many channels check it there."""
    result_topic: str = "public:results"
    """Topic on which the server broadcasts results; confirm mode echo listens on it."""
    alert_topic: str = "public:alerts"
    """Topic on which the server broadcasts failures; confirm mode echo listens on it."""
    confirm: ConfirmMode = "auto"
    """What confirms a push: the channel's reply, the event's echo, a later heartbeat (barrier), nothing, or auto."""
    window: int = 256
    """Maximum of unconfirmed pushes."""
    push_timeout_s: float = 10.0
    """Maximum wait for the confirmation of a push before it is pushed again."""
    connect_timeout_s: float = 10.0
    """Maximum time for TCP, TLS and the WebSocket handshake, and for a join's reply."""
    heartbeat_s: float = 30.0
    """Heartbeat interval; an unanswered heartbeat ends the connection."""
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
    """The queue of failed events."""

    queue: str = "/queue/ai.events.dlq"
    """The dead-letter queue: a single one, which broker.queue does not cover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToBrokerSettings:
    """The login of the broker that `replay-dlq --to-broker` sends to, where it is not that of `broker`."""

    user: str = ""
    """Login; empty means that of the profile, or broker.user. The user part of a URL goes before all."""
    password: Secret = field(default_factory=Secret)
    """Passcode; empty means that of the profile, or broker.password. Better: password_file."""
    password_file: str = ""
    """File whose first line is the passcode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Logs and status lines."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""
    log_format: Literal["text", "json"] = "text"
    """text for people, json for machines."""
    status_interval_s: float = 10.0
    """Interval of status lines if standard error is no terminal."""
    traces: Literal["off", "otlp"] = "off"
    """otlp exports spans over OTLP/HTTP, as the OTEL_ variables say (pip install 'infertool[otel]')."""
    trace_parent: Literal["parent", "link"] = "parent"
    """parent: events go on in the producer's trace; link: each begins a trace of its own, linked to the producer's."""
    metrics: str = ""
    """HOST:PORT, or PORT on 127.0.0.1, of metrics, health and stats; port 0 takes a free one. Empty: none."""
    stuck_after_s: float = 300.0
    """A consumer is not live when messages wait, it could take them, and nothing has come for this time."""
    trace_url: str = field(default="", repr=False)
    """Page of a trace, which watch opens: http://HOST/trace/{trace_id}. Empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """Alert rules and where they are told: docs/alerts.md."""

    enabled: bool = True
    """Evaluate the rules once a second, where telemetry.metrics, a rule or a sink is set."""
    rules: list[dict[str, Any]] = field(default_factory=list)
    """Rules of your own, and changes to shipped ones. In a file, write them as tables [[alerts]]."""
    alertmanager_url: str = field(default="", repr=False)
    """A Prometheus Alertmanager, http://HOST:9093; empty tells none."""
    webhook_url: str = field(default="", repr=False)
    """URL that gets each notification as signed JSON; empty sends none. Redirects are not followed."""
    webhook_secret: Secret = field(default_factory=Secret)
    """Key of the signature, whsec_ and base64, as Standard Webhooks writes it. Better: webhook_secret_file."""
    webhook_secret_file: str = ""
    """File whose first line is the webhook's secret."""
    command: list[str] = field(default_factory=list)
    """Program and arguments that get each notification as JSON on standard input; no shell. Empty runs none."""
    timeout_s: float = 10.0
    """Maximum time of one request, or of one run of the command."""

    @property
    def is_configured(self) -> bool:
        """Return True if there is a rule or a sink beside what is there without any settings."""
        return bool(self.rules or self.alertmanager_url or self.webhook_url or self.command)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Display and keys of `infertool watch`."""

    keep: int = 10_000
    """Maximum of kept results, and of kept failures and alerts; older ones are dropped and counted."""
    theme: Literal["dark", "light"] = "dark"
    """Colours. NO_COLOR disables them."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Keys by action, one or a list each, such as {pause = "p", quit = ["q", "ctrl+x"]}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings."""

    broker: BrokerSettings = field(default_factory=BrokerSettings)
    consume: ConsumeSettings = field(default_factory=ConsumeSettings)
    contract: ContractSettings = field(default_factory=ContractSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    phoenix: PhoenixSettings = field(default_factory=PhoenixSettings)
    deadletter: DeadLetterSettings = field(default_factory=DeadLetterSettings)
    to_broker: ToBrokerSettings = field(default_factory=ToBrokerSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    alerting: AlertSettings = field(default_factory=AlertSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)

    @property
    def has_alerts(self) -> bool:
        """Return True if alert rules are evaluated."""
        return self.alerting.enabled and bool(self.telemetry.metrics or self.alerting.is_configured)

    @property
    def is_detailed(self) -> bool:
        """Return True if what only metrics and alert rules show is counted."""
        return bool(self.telemetry.metrics) or self.has_alerts
