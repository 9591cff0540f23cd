"""Where webhooks may go: the allow list of hosts, and the addresses that nobody outside may have us connect to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from infertool.errors import SettingsError
from infertool.gateway.problem import Problem, Reason
from infertool.ipv6 import bracketed_url
from infertool.net.http_client import Target

_KEY: Final = "gateway.webhook_hosts"
_ADVICE: Final = "write hooks.example.com, *.example.com, hooks.example.com:8443, or an address"
LONGEST_URL: Final = 2_048
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9.-]{1,253}))(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[!-\"$-\[\]-~]*)?(?:\?[!-\"$-\[\]-~]*)?)"
)
_ENTRY: Final = re.compile(
    r"(?P<star>\*\.)?(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]{1,253}))(?::(?P<port>[0-9]{1,5}))?"
)
_NAME: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# A last label of digits, or hexadecimal: resolvers take such a name for an IPv4 address.
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_LOCALHOST: Final = "localhost"
_PORTS: Final = {"http": 80, "https": 443}
_HIGHEST_PORT: Final = 65_535
# IANA's registry of special IPv4 addresses, and multicast.
_SPECIAL_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# Only this part is routed. Of it, the protocols' own (Teredo among them), documentation and 6to4 are left out. Outside
# are the loopback, mapped, NAT64, unique local and link-local addresses.
_ROUTED_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
_Address = IPv4Address | IPv6Address


def is_public(address: _Address) -> bool:
    """Return True if an address belongs to one host of the Internet, and stands for no IPv4 address."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _ROUTED_V6 and not any(address in network for network in _SPECIAL_V6)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An allowed host: a name, the names below it (`below`), or an address."""

    host: str
    port: int | None
    below: bool = False

    @property
    def is_loopback(self) -> bool:
        """True for an address of this machine, which may be asked without TLS."""
        return self.host == _LOCALHOST or (_is_address(self.host) and ip_address(self.host).is_loopback)

    def matches(self, host: str) -> bool:
        return host.endswith(f".{self.host}") if self.below else host == self.host


class WebhookHosts:
    """The allow list. Raises `SettingsError` for an entry that names no host."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._entries = tuple(map(_entry, entries))

    def __bool__(self) -> bool:
        return bool(self._entries)

    def check(self, url: str) -> Target:
        """Return the parts of a webhook's URL. Raises `Problem`; its text does not repeat the URL, which may be secret.

        Names are not resolved: `usable` decides at each attempt.
        """
        if not self._entries:
            raise _refused("webhooks are off here")
        match = _URL.fullmatch(url) if len(url) <= LONGEST_URL else None
        if match is None:
            raise _refused(
                "an IPv6 address needs brackets"
                if bracketed_url(url)
                else f"it must be https://HOST/PATH of at most {LONGEST_URL} characters of ASCII, without a user and a "
                "fragment; a name in other letters is written as xn--…"
            )
        host, scheme = _host(match["v6"], match["name"]), match["scheme"].lower()
        if host is None:
            raise _refused("its host is no name, and no address in its usual form")
        if scheme not in _PORTS:
            raise _refused("it must be https")
        port = int(match["port"]) if match["port"] else _PORTS[scheme]
        entries = [each for each in self._entries if each.matches(host)]
        if not entries:
            raise _refused("its host is not among those that webhooks may go to")
        if scheme == "http" and not any(each.is_loopback for each in entries):
            raise _refused("it must be https")
        if not any(port == (each.port or _PORTS[scheme]) for each in entries):
            raise _refused("its port is not among those that webhooks may go to")
        path = match["path"]
        return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")

    def allowed(self, url: str) -> Target | None:
        """Return the parts of a URL; None if it is not allowed (any more)."""
        try:
            return self.check(url)
        except Problem:
            return None

    def lane(self, target: Target) -> str:
        """Return the entry that allows `target`: what goes wrong with it must not hold up those of other entries."""
        return next(f"{each.below}{each.host}" for each in self._entries if each.matches(target.host))

    def usable(self, target: Target, addresses: Sequence[str]) -> list[str]:
        """Return those of the resolved addresses that a connection may be made to.

        One that is not public must be in the list itself; `localhost` stands for those of this machine.
        """
        found = [ip_address(address) for address in addresses if "%" not in address]
        if _is_address(target.host):
            return [str(each) for each in found if str(each) == target.host]
        if target.host == _LOCALHOST:
            return [str(each) for each in found if each.is_loopback]
        return [str(each) for each in found if is_public(each)]


def _refused(why: str) -> Problem:
    return Problem(Reason.WEBHOOK_REFUSED, f"Infertool-Webhook: {why}")


def _host(v6: str | None, name: str | None) -> str | None:
    """Return a host in its one form; None for what is neither a name nor an address in its usual form."""
    try:
        if v6 is not None:
            return str(IPv6Address(v6))
        lower = (name or "").lower()
        if _NUMBER.fullmatch(lower):
            return str(IPv4Address(lower))
    except ValueError:
        return None
    return lower if _NAME.fullmatch(lower) else None


def _is_address(host: str) -> bool:
    return ":" in host or bool(_NUMBER.fullmatch(host))


def _entry(text: str) -> _Entry:
    match = _ENTRY.fullmatch(text if text.count(":") < 2 or text.startswith("[") else f"[{text}]")  # noqa: PLR2004
    host = match and _host(match["v6"], match["name"])
    port = int(match["port"]) if match and match["port"] else None
    if not match or not host or (port is not None and not 0 < port <= _HIGHEST_PORT):
        raise SettingsError(f"{_KEY}: {text!r} is no host", key=_KEY, advice=_ADVICE)
    below = bool(match["star"])
    if below and (_is_address(host) or "." not in host):
        raise SettingsError(f"{_KEY}: {text!r} allows too much", key=_KEY, advice="write *.example.com")
    return _Entry(host, port, below)
