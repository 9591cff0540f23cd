"""Broker URLs: `stomp://user:pass@a:61613,b:61613`, `stomp+ssl://`, `[::1]:61613`.

The user part holds a password, so no error here ever repeats it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from urllib.parse import unquote

from infertool.errors import SettingsError
from infertool.net.identify import bracketed
from infertool.secret import Secret

_DEFAULT_PORTS = {"stomp": 61613, "stomp+ssl": 61612}
_KEY = "broker.url"
_LARGEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """A parsed URL. `hosts` are tried in order; `user` and `password` are empty when the URL has none."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    user: str = ""
    password: Secret = field(default_factory=Secret)


def parse(url: str) -> BrokerUrl:
    """Return the parts of `url`. Raises SettingsError, which never shows the user part."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        raise _wrong(f"{_without_user(url)!r} is no broker URL", "write stomp://host:61613")
    _check_scheme(scheme)
    user_part, _, addresses = rest.rpartition("@")
    hosts = tuple(_host_and_port(scheme, address) for address in addresses.removesuffix("/").split(","))
    user, _, password = user_part.partition(":")
    return BrokerUrl(scheme, hosts, unquote(user), Secret(unquote(password)))


def _check_scheme(scheme: str) -> None:
    if scheme in _DEFAULT_PORTS:
        return
    nearest = next(iter(get_close_matches(scheme, _DEFAULT_PORTS, 1, 0.5)), "")
    advice = f"did you mean {nearest}://?" if nearest else f"known are {', '.join(_DEFAULT_PORTS)}"
    raise _wrong(f"no broker is known for the scheme {scheme!r}", advice, nearest)


def _host_and_port(scheme: str, address: str) -> tuple[str, int]:
    if meant := bracketed(address):
        raise _wrong(f"{address!r} in the broker URL is an IPv6 address without brackets", f"write {scheme}://{meant}")
    host, colon, port = address.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = address, str(_DEFAULT_PORTS[scheme])
    host = host.removeprefix("[").removesuffix("]")
    if not host or any(character in host for character in "/?#[] ") or (":" in host and f"[{host}]" not in address):
        raise _wrong(f"{address!r} in the broker URL is no host:port", "several hosts are separated by commas")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _LARGEST_PORT):
        raise _wrong(f"{address!r} in the broker URL has no valid port", "ports are 1 to 65535")
    return host, int(port)


def _without_user(url: str) -> str:
    return url.rpartition("@")[2]


def _wrong(what: str, advice: str, nearest: str = "") -> SettingsError:
    return SettingsError(what, key=_KEY, nearest=nearest, advice=advice)
