"""The settings tree: every option with its default, and its meaning in the string under it.

Names ending in `_s` are seconds, those in `_bytes` are bytes. `infertool config init` writes the strings as comments.
Values that may hold a password (URLs, join parameters) are excluded from `repr`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings
from infertool.settings.client_tls import ClientTlsSettings
from infertool.settings.serving import ServeSettings

ConfirmMode = Literal["auto", "reply", "echo", "barrier", "none"]
PublishMode = Literal["phoenix", "stdout", "none"]
NumberOrAuto = int | Literal["auto"]
# Results in a push with publish.batch auto: more in one gain nothing.
MOST_TOGETHER = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeSettings:
    """How events are processed."""

    executor: Literal["threads", "processes"] = "threads"
    """threads for models that wait or release the interpreter lock; processes for models that compute or may crash."""
    concurrency: NumberOrAuto = 0
    """Concurrent model calls, on threads; 0 means 16, or 2 in batches; auto adapts to latency and errors."""
    max_concurrency: int = 128
    """Maximum of concurrency auto."""
    workers: int = 0
    """Worker processes of executor processes, each with one call at a time; 0 means one per core, or device."""
    devices: str = ""
    """GPUs of the worker processes, with commas, such as 0,1: each process sees one. Empty: all see all."""
    max_tasks_per_worker: int = 0
    """A worker process is replaced after this many events; 0 means never."""
    worker_memory_bytes: int = 0
    """A worker process that uses more memory after an event is replaced; 0 means no limit."""
    batch_size: NumberOrAuto = "auto"
    """Maximum events in one call of predict_batch; 1 calls predict; auto measures what pays, where there is a
    predict_batch."""
    max_batch_size: int = 1024
    """Maximum of batch_size auto."""
    batch_wait_s: float = 0.01
    """Maximum time an event waits for a batch of a fixed size to fill."""
    target_latency_s: float = 0.0
    """Time from an event's delivery to its result that batch_size auto aims at; 0 means the highest throughput."""
    processes: int = 1
    """Consumer processes under one supervisor, each with its own connections and window."""
    window: int = 0
    """Maximum of unsettled messages; 0 means 200, or more if the concurrency, batches or batched pushes need more; with
    reply, as many as can be in progress. Queues with weights: docs/tuning.md."""
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
    """Try events that were in progress at a crash of the process alone, and dead-letter one that crashes it so."""
    state_dir: str = ""
    """Folder for the crash guard's files; empty means the user's state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings(ClientTlsSettings):
    """The model that processes events."""

    spec: str = field(default="sim:", repr=False)
    """sim:, module:callable, path/to/file.py:callable, an installed name, onnx:path/to/file.onnx, or http(s)://host/path."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Paths to an ONNX or KServe model's inputs in an event: X = "features.values"; default: the inputs' names."""
    providers: list[str] = field(default_factory=list)
    """Execution providers of an ONNX model, in order, such as ["cuda"]; the CPU is the last. Empty: all there are."""
    device_id: int = 0
    """GPU of an ONNX model, as its provider counts them."""
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
    batches: bool = False
    """A model server takes batches, of a measured size; without it only --batch-size and --target-latency make some."""
    error_field: str = ""
    """Field that a plain model server sets in the result of an event that failed, such as error. Empty: none."""
    circuit_failures: int = 5
    """Consecutive failures of a model server that open its circuit; events then wait instead of failing."""
    circuit_wait_s: float = 5.0
    """Time until an open circuit lets one event through to probe the model server."""


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
    batch: NumberOrAuto = "auto"
    """Maximum results in one push (new_results); auto: up to 64, or 64 KiB, if the join's response announces them."""
    max_bytes: int = 1_000_000
    """Maximum size of a push; a larger one loses its original_payload, then its prediction, and is marked truncated."""
    max_refusals: int = 3
    """Rejections of one payload by Phoenix before the event is dead-lettered."""

    @property
    def most_together(self) -> int:
        """The largest number of results in a push."""
        return MOST_TOGETHER if self.batch == "auto" else self.batch

    @property
    def room(self) -> int:
        """The size of pushes that the window is made for: with auto, they follow what finishes together."""
        return 1 if self.batch == "auto" else self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoenixSettings(ClientTlsSettings):
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
    window: int = 0
    """Maximum of unconfirmed pushes; 0 means as many as the consumer's window, and at least 256."""
    push_timeout_s: float = 10.0
    """Maximum wait for the confirmation of a push before it is pushed again."""
    connect_timeout_s: float = 10.0
    """Maximum time for TCP, TLS and the WebSocket handshake, and for a join's reply."""
    heartbeat_s: float = 30.0
    """Heartbeat interval; an unanswered heartbeat ends the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSettings:
    """The queue of failed events."""

    queue: str = "/queue/ai.events.dlq"
    """The dead-letter queue: a single one, which broker.queue does not cover. A topic in broker.url: TOPIC.dlq."""
    retry_topics: list[str] = field(default_factory=list)
    """Waits such as ["30s", "5m"], each in a topic of its own, before an event is dead-lettered (kafka)."""


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
class GatewaySettings:
    """The HTTP gateway: docs/gateway.md."""

    listen: str = "127.0.0.1:8080"
    """HOST:PORT, or PORT on 127.0.0.1, to listen on; port 0 takes a free one."""
    name: str = ""
    """Part of each request's id, unique among gateways side by side; empty: drawn once and kept."""
    peers: dict[str, Any] = field(default_factory=dict)
    """Base URLs of the other gateways by name: a request for one of their ids is redirected there."""
    models: dict[str, Any] = field(default_factory=dict)
    """Queue of each model by name: {fraud = "ai.fraud"}; empty: one model, default, behind broker.queue."""
    classes: dict[str, Any] = field(default_factory=dict)
    """Classes by name: {NAME = {weight = 8, budget = "5s", priority = 8}}; empty: interactive, standard and batch."""
    default_class: str = "standard"
    """The class of a request that names none."""
    keys_file: str = ""
    """File of API keys, as `infertool gateway keys add` writes it. Empty: keys are not asked for."""
    jwks_url: str = field(default="", repr=False)
    """URL of the key set (JWKS) that signs bearer tokens. Empty: tokens are not accepted."""
    jwt_issuer: str = ""
    """The issuer (iss) that a token must have."""
    jwt_audience: str = ""
    """The audience (aud) that a token must have."""
    anonymous: bool = False
    """Let requests without credentials in, also on an address that other machines reach."""
    failed_credentials: str = "60/m"
    """Wrong credentials from one address that are answered with 401; more get 429. Right ones pass. Empty: no limit."""
    trusted_proxies: list[str] = field(default_factory=list)
    """Addresses or networks of proxies whose X-Forwarded-For is believed."""
    rate: str = ""
    """Limit of requests of one client, such as 100/s, 600/m or 100/s:20 (burst of 20). Empty: none."""
    max_in_flight: int = 1000
    """Limit of requests of one client that are accepted and not finished."""
    max_bytes_in_flight: int = 268_435_456
    """Limit of the bodies of one client's requests that are accepted and not finished."""
    max_body_bytes: int = 16_777_216
    """Maximum size of a request's body."""
    max_waiting: int = 100_000
    """Limit of accepted requests that are not finished, of all clients."""
    max_waiting_bytes: int = 1_073_741_824
    """Limit of their bodies, and of outcomes that are not stored yet."""
    dispatch_ahead_s: float = 2.0
    """The broker holds as many requests as finish in this time, so that a later urgent one can overtake the rest."""
    cache: str = ""
    """Cache of results for equal requests, before the queue: number and lifetime, such as 10000:5m. Empty: no cache."""
    wait_s: float = 20.0
    """Time that a synchronous request waits for its result before it is answered with 202."""
    max_wait_s: float = 60.0
    """Maximum that a request may ask to wait for."""
    timeout_s: float = 600.0
    """Time after which a request that names none expires."""
    keep_s: float = 86_400.0
    """Time that results are kept for polling, and idempotency keys are remembered."""
    receive_timeout_s: float = 20.0
    """Maximum time for the headers of a request to arrive, and for each part of its body."""
    drain_s: float = 5.0
    """Time that running waits may still be answered after a stop; then they get 202."""
    max_connections: int = 12_000
    """Maximum of open connections; more are answered with 503."""
    state_dir: str = ""
    """Folder of accepted requests and results; empty means the user's state folder."""
    webhook_hosts: list[str] = field(default_factory=list)
    """Hosts that webhooks may name: hooks.example.com, *.example.com, HOST:PORT, an address. Empty: no webhooks."""
    webhook_secret: Secret = field(default_factory=Secret)
    """Key of the webhooks' signature, whsec_ and base64 (Standard Webhooks). Better: webhook_secret_file."""
    webhook_secret_file: str = ""
    """File whose first line is the webhooks' secret."""
    client_key: Secret = field(default_factory=Secret)
    """API key that `submit` and `loadgen --http` send to a gateway. Better: client_key_file."""
    client_key_file: str = ""
    """File whose first line is that key."""
    tls_cert_file: str = ""
    """PEM file of the certificate that the gateway shows. Empty: plain HTTP."""
    tls_key_file: str = ""
    """PEM file of that certificate's key; empty when it is in tls_cert_file."""
    tls_client_ca_file: str = ""
    """PEM file of the authorities whose client certificates name clients. Empty: none are asked for."""


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
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)

    @property
    def has_alerts(self) -> bool:
        """Return True if alert rules are evaluated."""
        return self.alerting.enabled and bool(self.telemetry.metrics or self.alerting.is_configured)

    @property
    def is_detailed(self) -> bool:
        """Return True if what only metrics and alert rules show is counted."""
        return bool(self.telemetry.metrics) or self.has_alerts
