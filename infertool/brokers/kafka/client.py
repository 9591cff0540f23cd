"""The clients of librdkafka, made from the settings of a broker.

Passwords and TLS files are read for each client. What librdkafka logs is not shown, unless `broker.kafka` has a
`log_level`: its errors come by callbacks.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient

from infertool.brokers.kafka import arenas
from infertool.brokers.target import Target
from infertool.errors import InfertoolError, SettingsError
from infertool.secret import MASK, Secret
from infertool.settings.broker import BrokerSettings

C = TypeVar("C")

KEY: Final = "broker.kafka"

# Properties that other settings have, or on which the guarantees rest, and what to do instead.
_USE: Final = "use {}"
_NEEDED: Final = "leave it out: infertool's guarantees rest on it"
_OWNED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("bootstrap.servers", "metadata.broker.list"), _USE.format("broker.url")),
    "security.protocol": "use kafka:// or kafka+ssl:// in broker.url, and broker.user for a login",
    "group.id": "use ?group=NAME in broker.url",
    **dict.fromkeys(("sasl.username", "sasl.oauthbearer.client.id"), _USE.format("broker.user")),
    **dict.fromkeys(
        ("sasl.password", "sasl.oauthbearer.client.secret"), _USE.format("broker.password_file, or broker.password")
    ),
    "ssl.ca.location": _USE.format("broker.tls_ca_file"),
    "ssl.certificate.location": _USE.format("broker.tls_cert_file"),
    "ssl.key.location": _USE.format("broker.tls_key_file"),
    **dict.fromkeys(
        ("enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm"),
        _USE.format("broker.tls_verify"),
    ),
    **dict.fromkeys(
        ("message.timeout.ms", "delivery.timeout.ms", "request.timeout.ms"), _USE.format("broker.receipt_timeout_s")
    ),
    **dict.fromkeys(
        (
            "acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee", "transactional.id",
            "delivery.report.only.error", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset",
            "isolation.level", "enable.partition.eof", "partition.assignment.strategy", "allow.auto.create.topics",
            "builtin.features", "test.mock.num.brokers", "plugin.library.paths", "interceptors", "opaque",
        ),
        _NEEDED,
    ),
}  # fmt: skip
_FILES: Final = ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location")
_MEMBER: Final = "group.instance.id"
_MECHANISMS: Final = ("sasl.mechanism", "sasl.mechanisms")
_OAUTH: Final = "OAUTHBEARER"
_LOG_LEVEL: Final = "log_level"
# Level 0 still writes what is fatal, which an error says, too.
_SILENT: Final = logging.Logger("librdkafka", logging.CRITICAL + 1)  # noqa: LOG001  # nobody configures it
# A question, or a send, makes no topic, whatever the broker's `auto.create.topics.enable` says.
_NO_TOPICS: Final[Mapping[str, Any]] = {"allow.auto.create.topics": False}
_DEFAULTS: Final[Mapping[str, Any]] = {
    _LOG_LEVEL: 0,
    # Messages wait for no others.
    "linger.ms": 0,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    # The broker refuses what is too large for a topic, and says so; the client would refuse what it takes.
    "message.max.bytes": 1_000_000_000,
    "topic.metadata.refresh.interval.ms": 30_000,
}
# Of a consumer that is no one of a share group, which takes no such properties.
_FETCH: Final[Mapping[str, Any]] = {
    # What is fetched ahead of a partition, is fetched once more after each pause: 100 000 messages, unless told.
    "queued.min.messages": 10_000,
    # It looks again whether that is to be fetched; it would wait for 1 s.
    "fetch.queue.backoff.ms": 20,
}
_SECRET: Final = ("password", "secret", ".pem")
_SESSION: Final = "session.timeout.ms"
_SESSION_S: Final = 45.0
# A token that does not say when it expires is read again after this time.
_TOKEN_S: Final = 300.0
# The year 5000: librdkafka takes milliseconds in 64 bits.
_LATEST_S: Final = 1e11


@dataclass(frozen=True)
class Clients:
    """Makes clients for one cluster. Each call may raise `SettingsError`.

    `member` is the id of a static member of a group, empty for none: consumers of several topics need one each, made
    of it. `protocol` is that of groups: `classic` or `consumer`.
    """

    targets: Sequence[Target] = field(repr=False)
    name: str
    settings: BrokerSettings = field(repr=False)
    given: Mapping[str, Any] = field(repr=False)
    member: str = ""
    session_timeout_s: float = _SESSION_S
    protocol: str = "classic"

    @property
    def address(self) -> str:
        """The address for people: no user, no password."""
        return f"{self.targets[0].scheme}://{','.join(target.place for target in self.targets)}"

    def consumer(self, group: str, **properties: Any) -> Consumer:
        """Return a consumer of `group`, which commits nothing by itself and skips aborted transactions."""
        known = {
            **{name: value for name, value in _FETCH.items() if name not in self.given},
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            **_NO_TOPICS,
        }
        return self._made(Consumer, {**known, **properties})

    def share_consumer(self, group: str) -> ShareConsumer:
        """Return a consumer of a share group, which is told of each event what became of it."""
        return self._made(ShareConsumer, {"group.id": group, "share.acknowledgement.mode": "explicit"})

    def producer(self, **properties: Any) -> Producer:
        """Return a producer whose messages are confirmed by all replicas in sync, each kept once."""
        timeout_ms = round(self.settings.receipt_timeout_s * 1000)
        known = {"enable.idempotence": True, "acks": "all", "message.timeout.ms": timeout_ms, **_NO_TOPICS}
        return self._made(Producer, {**known, **properties})

    def admin(self, **properties: Any) -> AdminClient:
        """Return a client that asks for metadata, offsets and rights."""
        return self._made(AdminClient, {**_NO_TOPICS, **properties})

    def credentials(self) -> object:
        """Return what changes when the login or a TLS file does; None while one cannot be read.

        A client has what was there when it was made.
        """
        try:
            config = self._connection()
            files = {name: _stamp(config[name]) for name in _FILES if name in config}
        except (InfertoolError, OSError):
            return None
        return config, files

    def masked(self, text: str) -> str:
        """Return `text`, which librdkafka or a broker wrote, without passwords."""
        for secret in (str(value) for name, value in self.given.items() if value and name.endswith(_SECRET)):
            text = text.replace(secret, MASK)
        return self.targets[0].masked(text)

    def _made(self, kind: Callable[[dict[str, Any]], C], properties: Mapping[str, Any]) -> C:
        arenas.limit()
        config = {**_DEFAULTS, **self._connection(), **self.given, **properties}
        if _LOG_LEVEL not in self.given:
            config["logger"] = _SILENT
        try:
            return kind(config)
        except KafkaException as fault:
            raise self._unusable(fault.args[0]) from None
        except (TypeError, ValueError) as fault:
            raise SettingsError(f"{KEY} cannot be used: {self.masked(str(fault))}", key=KEY) from None

    def _unusable(self, error: KafkaError) -> SettingsError:
        return SettingsError(
            f"{KEY} cannot be used: {self.masked(str(error.str()))}",
            key=KEY,
            advice="its properties are those of librdkafka's CONFIGURATION.md",
        )

    def _connection(self) -> dict[str, Any]:
        target = self.targets[0].fresh()
        timeout_ms = round(target.connect_timeout_s * 1000)
        config: dict[str, Any] = {
            "bootstrap.servers": ",".join(each.place for each in self.targets),
            "client.id": self.name,
            "socket.connection.setup.timeout.ms": max(1000, timeout_ms),
        }
        login = self._login(target)
        config["security.protocol"] = f"{'SASL_' if login else ''}{'SSL' if target.tls else 'PLAINTEXT'}"
        return {**config, **login, **(self._tls() if target.tls else {})}

    def _login(self, target: Target) -> dict[str, Any]:
        mechanism = next((str(self.given[name]) for name in _MECHANISMS if name in self.given), "")
        if not (mechanism or target.user):
            return {}
        if mechanism.upper() != _OAUTH:
            return {
                "sasl.mechanism": mechanism or "PLAIN",
                "sasl.username": target.user,
                "sasl.password": target.password.reveal(),
            }
        if self.given.get("sasl.oauthbearer.method") == "oidc":
            return {
                "sasl.oauthbearer.client.id": target.user,
                "sasl.oauthbearer.client.secret": target.password.reveal(),
            }
        if self.given.get("enable.sasl.oauthbearer.unsecure.jwt"):
            return {"sasl.oauthbearer.config": f"principal={target.user}"}
        return {"oauth_cb": _Tokens(target.user, self.targets[0].password)}

    def _tls(self) -> dict[str, Any]:
        settings = self.settings
        config: dict[str, Any] = {}
        if settings.tls_ca_file:
            config["ssl.ca.location"] = settings.tls_ca_file
        if settings.tls_cert_file:
            config["ssl.certificate.location"] = settings.tls_cert_file
            config["ssl.key.location"] = settings.tls_key_file or settings.tls_cert_file
        if not settings.tls_verify:
            config["enable.ssl.certificate.verification"] = False
            config["ssl.endpoint.identification.algorithm"] = "none"
        return config


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Gives librdkafka the token that is the password, read again each time."""

    user: str
    password: Secret

    def __call__(self, _config: str) -> tuple[str, float, str, dict[str, str]]:
        token = self.password.reveal()
        return token, _expiry(token), self.user, {}


def _stamp(path: str) -> tuple[int, int, int]:
    found = Path(path).stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _expiry(token: str) -> float:
    """Return when a token expires, in seconds since the epoch: what a JWT says, else soon."""
    part = token.split(".")[1] if token.count(".") == 2 else ""  # noqa: PLR2004  # header, claims, signature
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        ends = float(claims["exp"])
    except (binascii.Error, ValueError, TypeError, KeyError, OverflowError, RecursionError, msgspec.DecodeError):
        ends = math.nan
    return ends if 0 <= ends < _LATEST_S else time.time() + _TOKEN_S


def clients(settings: BrokerSettings, targets: Sequence[Target], name: str) -> Clients:
    """Return what makes the clients of a broker. Raises `SettingsError`."""
    given = _flat(settings.kafka)
    for property_ in given:
        if property_ in _OWNED or property_.endswith("_cb"):
            raise SettingsError(
                f"{KEY}: {property_} is not for this setting", key=KEY, advice=_OWNED.get(property_, _NEEDED)
            )
    member = str(given.pop(_MEMBER, ""))
    session = given.get(_SESSION, _SESSION_S * 1000)
    if not isinstance(session, int | float):
        raise SettingsError(f"{KEY}: {_SESSION} is no number of milliseconds", key=KEY)
    return Clients(
        targets, name, settings, given, member, session / 1000, str(given.get("group.protocol", "classic")).lower()
    )


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return properties by their full names: TOML makes tables of names with dots. Raises `SettingsError`."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        full = f"{prefix}{name}"
        match value:
            case Mapping():
                flat |= _flat(value, f"{full}.")
            case str() | bool() | int() | float():
                flat[full] = value
            case _:
                raise SettingsError(f"{KEY}: {full} is no text, number or truth value", key=KEY)
    return flat
