"""The settings of a broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from infertool.secret import Secret
from infertool.settings.client_tls import ClientTlsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings(ClientTlsSettings):
    """The broker that delivers events."""

    url: str = field(default="stomp://localhost:61613", repr=False)
    """Scheme stomp, amqp, kafka, or one with TLS; several hosts: stomp://a:61613,b:61613. A path: vhost or topic."""
    user: str = ""
    """Login. Also set by ACTIVEMQ_USER, or by the URL's user part."""
    password: Secret = field(default_factory=Secret)
    """Passcode. Also set by ACTIVEMQ_PASSWORD. Better: password_file."""
    password_file: str = ""
    """File whose first line is the passcode."""
    declare: bool = False
    """Create missing queues (amqp, kafka). Without it, one is an error; existing queues are never changed."""
    queue_type: Literal["classic", "quorum"] = "quorum"
    """The type of queues that are created (amqp)."""
    management_url: str = ""
    """RabbitMQ's management API, http://HOST:15672, for what AMQP does not tell (amqp)."""
    counted_browse: bool = False
    """Look at quorum queues that have a delivery limit: each look counts as a delivery (amqp). See peek-dlq --force."""
    queue: str = "/queue/ai.events.raw"
    """The queue to consume: NAME or /queue/NAME; also a list with commas, a pattern like ai.*, or weights: a=8,b=1."""
    order: Literal["none", "key", "partition"] = "none"
    """Which events run one after another (kafka): none, those of one key, or all of a partition."""
    max_gap: int = 10_000
    """Offsets of a partition between its oldest unsettled event and the newest (kafka); then its intake waits."""
    kafka: dict[str, Any] = field(default_factory=dict, repr=False)
    """Properties of librdkafka (kafka), such as {"sasl.mechanism" = "SCRAM-SHA-512"}."""
    reply_topic: str = "infertool.replies"
    """The topic for replies to what is asked (kafka), with a partition for each caller."""
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
