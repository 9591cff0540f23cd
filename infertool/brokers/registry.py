"""Broker URLs, and the adapter that each scheme names, imported when it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import unquote

from infertool.errors import SettingsError
from infertool.ipv6 import bracketed
from infertool.secret import Secret
from infertool.text.input import nearest

if TYPE_CHECKING:
    from infertool.brokers.port import Broker, Capabilities, Conventions
    from infertool.net.connection_state import OnConnection
    from infertool.settings.broker import BrokerSettings


_KEY = "broker.url"
_LARGEST_PORT = 65535
_PORT = re.compile(r"0*([0-9]{1,5})")
# A host in what stands before the last @: a password with these signs is less likely.
_SEVERAL_USERS = re.compile(r"@[^@,:]+:[0-9]{1,5},")
# The port of a scheme that has none.
_NO_PORT = 0


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """A parsed URL. `hosts` are tried in order, a port is 0 where the scheme has none.

    `user` and `password` are empty when the URL has none, `vhost` for the broker's default virtual host, `queue` where
    the URL names no queue.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    user: str = ""
    password: Secret = field(default_factory=Secret)
    vhost: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    queue: str = ""


def scheme(url: str) -> str:
    """Return the scheme of `url`, known or not. Raises SettingsError for what is no URL."""
    name, separator, _ = url.strip().partition("://")
    if not separator:
        raise _wrong(f"{_without_user(url)!r} is no broker URL", "write stomp://host:61613")
    return name


def parse(url: str) -> BrokerUrl:
    """Return the parts of `url`. Raises SettingsError, which never shows the user part."""
    name = scheme(url)
    form = adapter(name)
    rest, query = url.strip().partition("://")[2], ""
    if form.URL_OPTIONS is not None:
        rest, _, query = rest.partition("?")
    user_part, _, place = rest.rpartition("@")
    if _SEVERAL_USERS.search(user_part):
        raise _wrong(
            "the broker URL has users at several hosts", "write the user once, before the first host, and %40 for an @"
        )
    addresses, _, path = place.partition("/")
    hosts = tuple(_host_and_port(name, address, form.PORTS) for address in addresses.split(","))
    user, _, password = user_part.partition(":")
    vhost, queue = _path(name, path, form)
    options = _options(name, query, form.URL_OPTIONS)
    return BrokerUrl(name, hosts, unquote(user), Secret(unquote(password)), vhost, options, queue)


def _path(name: str, path: str, form: Adapter) -> tuple[str, str]:
    """Return the virtual host and the queue that follow the hosts, of which a scheme has one or none."""
    if form.PATH is UrlPath.QUEUE:
        return "", unquote(path)
    return _vhost(name, path, has_any=form.PATH is UrlPath.VHOST), ""


def _vhost(name: str, path: str, *, has_any: bool) -> str:
    """Return the virtual host that follows the hosts; empty for the default one, whose name is `/`."""
    vhost = unquote(path)
    if path and not has_any:
        raise _wrong(f"{path!r} in the broker URL has no meaning", f"write {name}://NAME")
    if any(character in path for character in "/?#") or not vhost.isprintable():
        raise _wrong(
            f"{path!r} in the broker URL is no virtual host", f"write %2F for a slash in its name: {name}://host/a%2Fb"
        )
    return "" if vhost == "/" else vhost


def _options(scheme: str, query: str, known: frozenset[str] | None) -> dict[str, str]:
    """Return the options of a query. An adapter whose `known` names are empty looks at them itself."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise _wrong(f"{bad[0]!r} in the broker URL is no option", "write ?name=value&name=value")
    if known and (unknown := next((name for name, _, _ in pairs if name not in known), "")):
        raise _wrong(
            f"{unknown!r} in the broker URL is no option of {scheme}://", f"known are {', '.join(sorted(known))}"
        )
    options = {name: unquote(value) for name, _, value in pairs}
    if len(options) < len(pairs):
        raise _wrong("an option of the broker URL stands twice", "write ?name=value&name=value, each name once")
    return options


def _host_and_port(scheme: str, address: str, ports: Mapping[str, int | None]) -> tuple[str, int]:
    if meant := bracketed(address):
        raise _wrong(f"{address!r} in the broker URL is an IPv6 address without brackets", f"write {scheme}://{meant}")
    host, colon, port = address.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = address, str(ports[scheme] or _NO_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or any(character in host for character in "/?#[] ") or (":" in host and f"[{host}]" not in address):
        raise _wrong(f"{address!r} in the broker URL is no host:port", "several hosts are separated by commas")
    if not colon and ports[scheme] is None:
        return host, _NO_PORT
    number = int(match[1]) if (match := _PORT.fullmatch(port)) else 0
    if not 0 < number <= _LARGEST_PORT:
        raise _wrong(f"{address!r} in the broker URL has no valid port", "ports are 1 to 65535")
    return host, number


def _without_user(url: str) -> str:
    return url.rpartition("@")[2]


def _wrong(what: str, advice: str) -> SettingsError:
    return SettingsError(what, key=_KEY, advice=advice)


class UrlPath(StrEnum):
    """What the path of a broker URL names."""

    NOTHING = "nothing"
    VHOST = "virtual host"
    QUEUE = "queue"


class Adapter(Protocol):
    """What the module of an adapter offers. Its import must cost little: `open_broker` imports the client."""

    # The default port of each scheme, None for a scheme without ports.
    PORTS: Mapping[str, int | None]
    # What follows the hosts of a URL.
    PATH: UrlPath
    # The names of a URL's options; None for an adapter without any, none where it looks at them itself.
    URL_OPTIONS: frozenset[str] | None
    # What is known of its brokers without a connection.
    CAPABILITIES: Capabilities
    CONVENTIONS: Conventions

    def open_broker(
        self, settings: BrokerSettings, url: BrokerUrl, *, name: str, on_connection: OnConnection | None
    ) -> Broker:
        """Return a broker that is not yet connected. Raises `SettingsError`."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """The module of an adapter, the package that it needs, and the extra of infertool that installs that.

    `system` is OpenTelemetry's name of the usual broker.
    """

    module: str
    package: str = ""
    extra: str = ""
    system: str = ""


_STOMP: Final = _Entry("infertool.brokers.stomp.adapter", system="activemq")
_AMQP: Final = _Entry("infertool.brokers.amqp.adapter", "pika", "rabbitmq", "rabbitmq")
_KAFKA: Final = _Entry("infertool.brokers.kafka.adapter", "confluent_kafka", "kafka", "kafka")
_SCHEMES: Final[Mapping[str, _Entry]] = {
    "stomp": _STOMP,
    "stomp+ssl": _STOMP,
    "amqp": _AMQP,
    "amqps": _AMQP,
    "kafka": _KAFKA,
    "kafka+ssl": _KAFKA,
    "kafka+share": _KAFKA,
    "kafka+share+ssl": _KAFKA,
    "memory": _Entry("infertool.brokers.memory.adapter"),
}
_WITH_TLS: Final = frozenset({"stomp+ssl", "amqps", "kafka+ssl", "kafka+share+ssl"})


def has_tls(scheme: str) -> bool:
    """Return True if the URLs of a scheme mean connections with TLS."""
    return scheme in _WITH_TLS


def system(url: str) -> str:
    """Return OpenTelemetry's name of the kind of broker that `url` most likely names."""
    name = url.strip().partition("://")[0]
    return _SCHEMES[name].system or name if name in _SCHEMES else ""


def adapter(scheme: str) -> Adapter:
    """Return the adapter of a URL's scheme. Raises `SettingsError` for a scheme that none has."""
    entry = _SCHEMES.get(scheme)
    if entry is None:
        raise _unknown(scheme)
    if entry.package and find_spec(entry.package) is None:
        raise SettingsError(
            f"brokers of the scheme {scheme} need the package {entry.package}, which is not installed",
            key="broker.url",
            advice=f"pip install 'infertool[{entry.extra}]'",
        )
    return cast("Adapter", import_module(entry.module))


def _unknown(scheme: str) -> SettingsError:
    meant = nearest(scheme, _SCHEMES)
    advice = f"did you mean {meant}://?" if meant else f"known are {', '.join(_SCHEMES)}"
    return SettingsError(
        f"no broker is known for the scheme {scheme!r}", key="broker.url", nearest=meant, advice=advice
    )
