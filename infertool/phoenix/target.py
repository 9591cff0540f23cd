"""Where to connect: the hosts of a Phoenix URL, and the request line for one of them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from infertool.errors import SettingsError
from infertool.secret import Secret

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings


VSN = "2.0.0"
_PORTS = {"ws": 80, "wss": 443}
_EXAMPLE = "write it as ws://host:4000/socket/websocket"


@dataclass(frozen=True, slots=True)
class Target:
    """One host of the URL. `params` may hold the token; `address` is fit to be shown."""

    scheme: str
    host: str
    port: int
    path: str
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    token: Secret = field(default_factory=Secret)

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme == "wss"

    @property
    def address(self) -> str:
        """The URL without user part and parameters."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def loopback(self) -> bool:
        """Whether the host is this machine by name or number."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def fresh(self) -> Target:
        """Return the target with the token as it is now, for one connection. Raises `SettingsError`."""
        return replace(self, token=self.token.fixed())

    def url(self, *, token_in_params: bool) -> str:
        """Return the URL for the wire, with vsn and, if asked for, the token. Never show it."""
        params = dict(self.params)
        if self.token and token_in_params:
            params["token"] = self.token.reveal()
        params["vsn"] = VSN
        return f"{self.address}?{urlencode(params, quote_via=quote)}"


def targets(settings: PhoenixSettings) -> list[Target]:
    """Return the hosts of `settings.url` in order. Raises `SettingsError`, which never shows the URL's secrets.

    The token is the one of the settings; else the password in the URL's user part, else its parameter `token`.
    """
    scheme, separator, rest = settings.url.partition("://")
    if not separator or scheme not in _PORTS:
        raise _wrong("has no scheme ws:// or wss://")
    hosts, slash, tail = rest.partition("/")
    return [_target(scheme, host, slash + tail, settings.token) for host in hosts.split(",")]


def _target(scheme: str, host: str, tail: str, token: Secret) -> Target:
    try:
        parts = urlsplit(f"{scheme}://{host}{tail}")
        port = parts.port or _PORTS[scheme]
    except ValueError:
        raise _wrong("has a host or port that cannot be read") from None
    if not parts.hostname:
        raise _wrong("names no host")
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    in_url = params.pop("token", "")
    token = token or Secret(unquote(parts.password or "")) or Secret(in_url)
    return Target(scheme, parts.hostname, port, parts.path or "/", tuple(params.items()), token)


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"phoenix.url {what}", key="phoenix.url", advice=_EXAMPLE)
