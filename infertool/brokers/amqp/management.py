"""RabbitMQ's management API: what AMQP does not tell of a queue. Figures are up to 5 s old (the plugin's samples)."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, SSLError
from urllib3.exceptions import TimeoutError as HttpTimeout

from infertool.errors import RefusedError, ServerError, SettingsError, UnreachableError
from infertool.ipv6 import bracketed_url
from infertool.net import basic_auth, http_faults, http_pool
from infertool.net.http_faults import hint, innermost, wants_tls
from infertool.net.tls import ClientTls, explain, openssl_reason
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings
from infertool.text import json_text

KEY: Final = "broker.management_url"
# Whoever asks has a second way, or waits in front of a screen. Seconds.
_TIMEOUT_S: Final = 3.0
_PAUSE_S: Final = 10.0
# The answer to the columns below has about 1 KB, and arguments as long as a person writes them.
_MOST_BYTES: Final = 1024 * 1024
_EXCERPT: Final = 200
_COLUMNS: Final = (
    "type", "state", "durable", "auto_delete", "exclusive", "arguments", "effective_policy_definition",
    "messages_ready", "messages_unacknowledged", "consumers", "head_message_timestamp",
    "message_stats.publish", "message_stats.publish_details.rate", "message_stats.ack",
    "message_stats.deliver_get_details.rate", "message_stats.deliver_no_ack", "message_stats.get_no_ack",
)  # fmt: skip
# From this version on, quorum queues that nothing else is said of deliver a message 20 times.
_FIRST_WITH_LIMIT: Final = 4
_LIMIT: Final = 20
_WITHOUT_LIMIT: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """A queue as the management API tells it. None is what it does not tell (yet: a new queue has no figures).

    `policy` holds what policies set, by their own names (`delivery-limit`, `max-length`). Rates are messages a second.
    `oldest_at` is the time that the producer gave the first message, in seconds since the epoch; only classic queues
    tell it. `delivery_limit` is None where a message may be delivered for ever.
    """

    type: str
    durable: bool = True
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    delivery_limit: int | None = None
    ready: int | None = None
    unacked: int | None = None
    consumers: int | None = None
    published: int | None = None
    acked: int | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None
    oldest_at: float | None = None


class Management:
    """Asks the management API of the broker's virtual host. Thread-safe."""

    def __init__(self, settings: BrokerSettings, url: str, *, user: str, password: Secret, vhost: str) -> None:
        """Raise `SettingsError` for a URL or TLS files that cannot be used."""
        self.address = _checked(url)
        self._user, self._password = user, password
        self._vhost = quote(vhost, safe="")
        self._version = 0
        # Earliest time of the next question that may fail, in the monotonic clock.
        self._not_before = 0.0
        self._tls = ClientTls("broker", settings) if self.address.startswith("https:") else None
        self._pool = http_pool.pool(
            self.address,
            maxsize=2,
            retries=False,
            timeout=urllib3.Timeout(connect=_TIMEOUT_S, read=_TIMEOUT_S),
            **({"ssl_context": self._tls.context} if self._tls else {}),
        )
        self._prefix = urlsplit(self.address).path.rstrip("/")

    def queue(self, name: str) -> QueueFacts | None:
        """Return what is known of a queue; None if there is none. Raises `UnreachableError`, `RefusedError`."""
        found = self._ask(f"/api/queues/{self._vhost}/{quote(name, safe='')}?columns={','.join(_COLUMNS)}")
        return None if found is None else facts(found, self._major_version())

    def try_queue(self, name: str) -> QueueFacts | None:
        """Return what is known of a queue; None if nothing is. After a failure, the API is not asked for a while."""
        if time.monotonic() < self._not_before:
            return None
        try:
            return self.queue(name)
        except (ServerError, SettingsError):
            self._not_before = time.monotonic() + _PAUSE_S
            return None

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()

    def _major_version(self) -> int:
        """Return the broker's major version; that of the newest known behaviour if it is not told."""
        if not self._version:
            found = self._ask("/api/overview?columns=rabbitmq_version") or {}
            major = str(found.get("rabbitmq_version", "")).partition(".")[0]
            self._version = int(major) if major.isdecimal() else _FIRST_WITH_LIMIT
        return self._version

    def _ask(self, path: str) -> dict[str, Any] | None:
        try:
            status, content = self._exchange(path)
        except HTTPError as fault:
            raise self._unreachable(fault) from None
        if status == HTTPStatus.NOT_FOUND and content.startswith(b'{"error":"Object Not Found"'):
            return None
        if status == HTTPStatus.BAD_REQUEST and (tls := wants_tls(self.address, KEY)):
            raise UnreachableError(tls[0], address=self.address, advice=tls[1])
        if status != HTTPStatus.OK:
            raise self._refused(status, content)
        try:
            found = json_text.loads(content)
        except json_text.JsonError:
            found = None
        if not isinstance(found, dict):
            raise UnreachableError(
                f"what answers at {self.address} is no management API: {_excerpt(content)}",
                address=self.address,
                advice=f"check {KEY}",
            )
        return found

    def _exchange(self, path: str) -> tuple[int, bytes]:
        if self._tls and (tls := self._tls.fresh()) is not self._tls:
            self._tls = tls
            self._pool.conn_kw["ssl_context"] = tls.context
        deadline = time.monotonic() + _TIMEOUT_S
        login = basic_auth.header(self._user, self._password.reveal()) | {"user-agent": "infertool"}
        response = self._pool.urlopen(
            "GET", f"{self._prefix}{path}", headers=login, redirect=False, preload_content=False
        )
        try:
            content = http_pool.read_body(response, _MOST_BYTES, deadline)
        except BaseException:
            response.close()
            raise
        if len(content) > _MOST_BYTES:
            response.close()
            raise HttpTimeout(f"more than {_MOST_BYTES} bytes")
        response.release_conn()
        return response.status, content

    def _unreachable(self, fault: HTTPError) -> ServerError:
        inner = innermost(fault)
        if instead := hint(fault, self.address, KEY, self._tls.context if self._tls else None):
            return UnreachableError(instead[0], address=self.address, advice=instead[1])
        if isinstance(fault, SSLError) and isinstance(inner, ssl.SSLError):
            shown = self._tls is not None and self._tls.shows_certificate
            known = explain(inner, self.address, "broker", shown=shown)
            what, advice = known or (f"TLS with {self.address} failed: {openssl_reason(inner)}", f"check {KEY}")
            return UnreachableError(what, address=self.address, advice=advice)
        # A refused connection is a timeout to urllib3, too.
        if isinstance(fault, HttpTimeout) and (isinstance(inner, TimeoutError) or not isinstance(inner, OSError)):
            reason = f"no whole answer within {_TIMEOUT_S:g} s"
        else:
            reason = http_faults.reason(fault)
        return UnreachableError(
            f"the management API at {self.address} cannot be reached: {reason}",
            address=self.address,
            advice=f"check {KEY}, and that the plugin rabbitmq_management is enabled",
        )

    def _refused(self, status: int, content: bytes) -> RefusedError:
        reason, advice = f"{status} {_excerpt(content)}", f"check {KEY}"
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            advice = "check broker.user and broker.password; the user needs the tag `management` (or `monitoring`)"
        what = f"the management API at {self.address} refused: {reason}"
        return RefusedError(what, address=self.address, reason=reason, advice=advice)


def facts(document: Mapping[str, Any], major_version: int) -> QueueFacts:
    """Return the facts in the API's document on a queue of a broker of that version."""
    arguments, policy = _table(document, "arguments"), _table(document, "effective_policy_definition")
    stats = _table(document, "message_stats")
    kind = document.get("type")
    taken = [_number(stats, name) for name in ("ack", "deliver_no_ack", "get_no_ack")]
    return QueueFacts(
        type=kind if isinstance(kind, str) else "",
        durable=document.get("durable") is not False,
        auto_delete=document.get("auto_delete") is True,
        arguments=arguments,
        policy=policy,
        delivery_limit=_delivery_limit(arguments, policy, major_version) if kind == "quorum" else None,
        ready=_number(document, "messages_ready"),
        unacked=_number(document, "messages_unacknowledged"),
        consumers=_number(document, "consumers"),
        published=_number(stats, "publish"),
        acked=None if taken[0] is None else sum(count or 0 for count in taken),
        publish_rate=_rate(stats, "publish_details"),
        deliver_rate=_rate(stats, "deliver_get_details"),
        oldest_at=_number(document, "head_message_timestamp"),
    )


def _delivery_limit(arguments: Mapping[str, Any], policy: Mapping[str, Any], major_version: int) -> int | None:
    """Return how often a quorum queue delivers a message: the lower of what its arguments and a policy say."""
    told = [
        limit
        for limit in (_whole(arguments, "x-delivery-limit"), _whole(policy, "delivery-limit"))
        if limit is not None
    ]
    if not told:
        return _LIMIT if major_version >= _FIRST_WITH_LIMIT else None
    limits = [limit for limit in told if limit > _WITHOUT_LIMIT]
    return min(limits) if limits else None


def _checked(url: str) -> str:
    if meant := bracketed_url(url):
        raise SettingsError(f"{KEY} names an IPv6 address, which needs brackets", key=KEY, advice=f"write {meant}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        usable = usable and parts.username is None and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(
            f"{KEY} is no URL of a management API",
            key=KEY,
            advice="write http://host:15672, without a user: broker.user and broker.password are used",
        )
    return url.rstrip("/")


def _excerpt(content: bytes) -> str:
    return " ".join(content.decode("utf-8", "replace").split())[:_EXCERPT]


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _whole(document: Mapping[str, Any], name: str) -> int | None:
    found = document.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _number(document: Mapping[str, Any], name: str) -> int | None:
    found = _whole(document, name)
    return found if found is not None and found >= 0 else None


def _rate(stats: Mapping[str, Any], name: str) -> float | None:
    found = _table(stats, name).get("rate")
    return float(found) if isinstance(found, int | float) else None
