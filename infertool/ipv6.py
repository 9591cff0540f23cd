"""IPv6 addresses that were typed without the brackets they need in a URL."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

# Smallest number that is taken for a port rather than for the end of an address, and those below it.
_LEAST_PORT: Final = 1000
_WEB_PORTS: Final = {80, 443}
_PORT: Final = re.compile(r"[0-9]{1,5}")


def bracketed_url(url: str) -> str:
    """Return scheme and host of `url` with the brackets that an IPv6 address lacks; empty for any other URL."""
    scheme, _, rest = url.partition("://")
    hosts = [host.rpartition("@")[2] for host in re.split(r"[/?#]", rest, maxsplit=1)[0].split(",")]
    meant = next(filter(None, map(bracketed, hosts)), "")
    return f"{scheme}://{meant}" if meant else ""


def bracketed(address: str) -> str:
    """Return `[address]:port` for an IPv6 address that lacks its brackets; empty for any other text."""
    host, _, port = address.rpartition(":")
    # The last group of an address may look like a port, but ports mostly have four digits or more.
    if _PORT.fullmatch(port) and (int(port) >= _LEAST_PORT or int(port) in _WEB_PORTS) and _is_ipv6(host):
        return f"[{host}]:{port}"
    return f"[{address}]" if _is_ipv6(address) else ""


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6  # noqa: PLR2004
    except ValueError:
        return False
