"""Who sends a request: API keys, bearer tokens, client certificates; without any of them, an address."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from infertool.errors import SettingsError, UsageError
from infertool.gateway.clients import client_of
from infertool.gateway.failed_credentials import FailedCredentials
from infertool.gateway.key_file import KeyFile, KeyFileError
from infertool.gateway.key_set import KeySet
from infertool.gateway.keys import PREFIX, ApiKey, KeyRing
from infertool.gateway.live_keys import LiveKeys
from infertool.gateway.principal import ClientLimits, Principal
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.rate import Rate
from infertool.gateway.tokens import Tokens, refusal
from infertool.settings import GatewaySettings
from infertool.telemetry.health import Condition
from infertool.text.input import home_path, parse_listen_address

# Addresses whose principals are kept.
_MOST_ADDRESSES: Final = 4096
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="infertool"'}


class Gatekeeper:
    """Identifies clients. For one event loop, which it never blocks."""

    def __init__(self, settings: GatewaySettings, *, clock: Callable[[], float] = time.time) -> None:
        """Raise `SettingsError` for settings that contradict each other, or let everybody in by accident."""
        self._clock = clock
        self._limits = ClientLimits(
            rate=_rate(settings.rate, "rate"),
            max_in_flight=settings.max_in_flight,
            max_bytes_in_flight=settings.max_bytes_in_flight,
        )
        self._keys = _live_keys(settings.keys_file)
        self._key_set = KeySet(settings.jwks_url) if settings.jwks_url else None
        self._tokens = _tokens(settings, self._key_set, clock)
        self._certificates = bool(settings.tls_client_ca_file)
        self._asks = bool(self._keys or self._tokens or self._certificates)
        self._lets_anybody_in = settings.anonymous or not self._asks
        if not (self._asks or settings.anonymous or _is_local(settings.listen)):
            raise SettingsError(
                f"gateway.listen {settings.listen} is reached by other machines, and nobody has to show who they are",
                key="gateway.listen",
                advice="set gateway.keys_file or gateway.jwks_url, or gateway.anonymous = true to let everybody in",
            )
        self._failures = FailedCredentials(_rate(settings.failed_credentials, "failed_credentials"))
        self._of_address = lru_cache(maxsize=_MOST_ADDRESSES)(self._anybody)
        self._ring: KeyRing | None = None
        self._principals: dict[str, Principal] = {}

    async def identify(
        self, authorization: str | None, api_key: str | None, certificate_name: str | None, address: str
    ) -> Principal:
        """Return who sends a request. Raises `Problem`; its text never shows what was sent.

        `authorization` and `api_key` are the headers Authorization and X-API-Key, None where they are missing.
        Credentials that are wrong are refused also where none are needed. Where none can be checked they are not
        looked at.
        """
        if not self._asks:
            return self._of_address(address)
        try:
            sent = _credential(authorization, api_key)
            if sent is not None:
                return await self._of_key(sent) if sent.startswith(PREFIX) else await self._of_token(sent)
        except Problem as refused:
            if refused.reason is Reason.INVALID_CREDENTIALS:
                raise self._failures.failed(client_of(address), refused) from None
            raise
        if certificate_name and self._certificates:
            return await self._of_certificate(certificate_name)
        if self._lets_anybody_in:
            return self._of_address(address)
        raise Problem(Reason.UNAUTHENTICATED, self._wanted(), headers=dict(_CHALLENGE))

    def health(self) -> list[Condition]:
        """Return how keys file and key set were read last. Not a reason to be unready: what was read before holds."""
        found = []
        if self._keys is not None:
            found.append(Condition("keys_file", ok=not self._keys.fault, value=self._keys.fault or "read"))
        if self._key_set is not None:
            value = self._key_set.fault or ("read" if self._key_set.is_known else "not read yet")
            found.append(Condition("key_set", ok=not self._key_set.fault, value=value))
        return found

    async def _of_key(self, sent: str) -> Principal:
        ring = await self._keys.ring() if self._keys else None
        key = ring.find(sent) if ring else None
        if ring is None or key is None:
            raise refusal("there is no such key")
        return self._of_entry(ring, key)

    async def _of_certificate(self, name: str) -> Principal:
        ring = await self._keys.ring() if self._keys else None
        key = ring.of_certificate(name) if ring else None
        if ring is not None and key is not None:
            return self._of_entry(ring, key)
        return Principal(client=f"certificate:{name}", limits=self._limits)

    async def _of_token(self, sent: str) -> Principal:
        if self._tokens is None:
            raise refusal("tokens are not accepted here" if self._keys is None else "there is no such key")
        claims = await self._tokens.check(sent)
        return Principal(
            client=f"token:{claims.subject}", limits=self._limits, models=claims.models, classes=claims.classes
        )

    def _anybody(self, address: str) -> Principal:
        return Principal(client=client_of(address), limits=self._limits)

    def _of_entry(self, ring: KeyRing, key: ApiKey) -> Principal:
        state = key.state(datetime.fromtimestamp(self._clock(), UTC))
        if state != "active":
            raise refusal(f"the key is {state}")
        if ring is not self._ring:
            self._ring, self._principals = ring, {}
        if (found := self._principals.get(key.id)) is None:
            found = self._principals[key.id] = _principal(key, self._limits)
        return found

    def _wanted(self) -> str:
        ways = [
            "Authorization: Bearer ik_… (or X-API-Key)" if self._keys else "",
            "Authorization: Bearer and a token" if self._tokens else "",
            "a client certificate" if self._certificates else "",
        ]
        return "send " + ", or ".join(filter(None, ways))


def _credential(authorization: str | None, api_key: str | None) -> str | None:
    """Return the key or token that was sent. Raises `Problem` for two, or for another scheme."""
    sent = None
    if authorization is not None:
        scheme, _, sent = authorization.strip().partition(" ")
        sent = sent.strip()
        if scheme.lower() != "bearer" or not sent:
            raise refusal("Authorization must be Bearer and a key or token")
    if api_key is None:
        return sent
    if sent is not None:
        raise refusal("Authorization and X-API-Key are both there")
    key = api_key.strip()
    if not key.startswith(PREFIX):
        raise refusal("X-API-Key is no key of this gateway")
    return key


def _principal(key: ApiKey, default: ClientLimits) -> Principal:
    limits = ClientLimits(
        rate=Rate.parse(key.rate) or default.rate,
        max_in_flight=key.max_in_flight or default.max_in_flight,
        max_bytes_in_flight=key.max_bytes_in_flight or default.max_bytes_in_flight,
    )
    return Principal(
        client=f"key:{key.name}",
        limits=limits,
        models=None if key.models is None else frozenset(key.models),
        classes=None if key.classes is None else frozenset(key.classes),
    )


def _rate(text: str, name: str) -> Rate | None:
    try:
        return Rate.parse(text)
    except UsageError as error:
        raise SettingsError(f"gateway.{name}: {error.what}", key=f"gateway.{name}", advice=error.advice) from None


def _live_keys(path: str) -> LiveKeys | None:
    if not path:
        return None
    try:
        return LiveKeys(KeyFile(home_path(path)))
    except KeyFileError as error:
        raise SettingsError(f"gateway.keys_file: {error.what}", key="gateway.keys_file", advice=error.advice) from None


def _tokens(settings: GatewaySettings, keys: KeySet | None, clock: Callable[[], float]) -> Tokens | None:
    for name, value in (("jwt_issuer", settings.jwt_issuer), ("jwt_audience", settings.jwt_audience)):
        if keys is None and value:
            raise SettingsError(
                f"gateway.{name} is set without gateway.jwks_url: tokens are not looked at", key=f"gateway.{name}"
            )
        if keys is not None and not value:
            raise SettingsError(
                f"gateway.jwks_url needs gateway.{name}: tokens that are meant for others would be accepted",
                key=f"gateway.{name}",
            )
    return Tokens(keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience, clock=clock) if keys else None


def _is_local(listen: str) -> bool:
    host, _ = parse_listen_address(listen)
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
