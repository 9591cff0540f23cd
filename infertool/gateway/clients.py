"""Where a request comes from: its address behind trusted proxies, and the name in a client certificate.

X-Forwarded-For is read from the right: each proxy appends the address that it saw. An entry counts only if the proxy
that wrote it is trusted, so what a client writes itself is never reached, whatever it is.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from infertool.errors import SettingsError

Address = IPv4Address | IPv6Address
_KEY: Final = "gateway.trusted_proxies"
_MOST_HOPS: Final = 32
_LONGEST_HOP: Final = 64
_LONGEST_NAME: Final = 255
_IPV4_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}", re.ASCII)
_IN_BRACKETS: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?", re.ASCII)
# A client with IPv6 has at least a /64 to itself: limits of single addresses would be none.
_IPV6_CLIENT_BITS: Final = 64


class TrustedProxies:
    """The addresses of proxies whose X-Forwarded-For is believed."""

    def __init__(self, written: Iterable[str]) -> None:
        """Raise `SettingsError` for what is no address and no network."""
        self._networks = [_network(text) for text in written]

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)


def client_address(peer: str, forwarded_for: str, trusted: TrustedProxies) -> str:
    """Return the address of the client. `forwarded_for` is X-Forwarded-For; several are joined in order by commas.

    An entry that is no address ends the search: the address of the proxy that passed it on is returned. So is that of
    the outermost proxy where all are trusted.
    """
    if not forwarded_for or (found := _parse(peer.partition("%")[0])) is None or found not in trusted:
        return _peer_address(peer)
    for written in reversed(forwarded_for.rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]):
        hop = _parse(written.strip(" \t"))
        if hop is None:
            break
        found = hop
        if found not in trusted:
            break
    return str(found)


@lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """Return the client that an address stands for: the address itself, or the /64 of one of IPv6."""
    found = _parse(address)
    if isinstance(found, IPv6Address):
        return f"address:{IPv6Network((found, _IPV6_CLIENT_BITS), strict=False)}"
    return f"address:{found or address}"


def certificate_name(certificate: Mapping[str, Any] | None) -> str:
    """Return the name in a verified client certificate, as `ssl` gives it; empty if there is none that can be used.

    It is the subject's common name, else the first URI, else the first DNS name. A certificate whose time is over comes
    with a TLS session that began before.
    """
    if not certificate:
        return ""
    if (ends := certificate.get("notAfter")) and ssl.cert_time_to_seconds(ends) < time.time():
        return ""
    subject: Sequence[Sequence[tuple[str, str]]] = certificate.get("subject", ())
    names = [value for part in subject for kind, value in part if kind == "commonName"]
    others: Sequence[tuple[str, str]] = certificate.get("subjectAltName", ())
    for wanted in ("URI", "DNS"):
        names += [value for kind, value in others if kind == wanted]
    name = names[0] if names else ""
    return name if len(name) <= _LONGEST_NAME and name.isprintable() else ""


@lru_cache(maxsize=4096)
def _peer_address(peer: str) -> str:
    # A UNIX socket has none.
    return str(_parse(peer.partition("%")[0]) or peer)


def _parse(text: str) -> Address | None:
    """Return the address, without a port; one of IPv4 also where it is written as one of IPv6. None if it is none."""
    return _parsed(text) if len(text) <= _LONGEST_HOP and text.isascii() else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    bare = match[1] if (match := _IPV4_WITH_PORT.fullmatch(text) or _IN_BRACKETS.fullmatch(text)) else text
    if "%" in bare:
        return None
    try:
        found = ip_address(bare)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _network(text: str) -> Any:
    try:
        network = ip_network(text.strip(), strict=False)
    except ValueError:
        raise SettingsError(
            f"{_KEY}: {text!r} is no address and no network",
            key=_KEY,
            advice="write for example 10.0.0.7 or 10.0.0.0/8",
        ) from None
    if isinstance(network, IPv6Network) and (mapped := network.network_address.ipv4_mapped) is not None:
        return ip_network((mapped, max(0, network.prefixlen - 96)))
    return network
