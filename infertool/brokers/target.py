"""One host to connect to, how, and what to say of a connection to it that failed."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import quote

from infertool.brokers.registry import BrokerUrl
from infertool.errors import RefusedError, SettingsError, UnreachableError
from infertool.net.address import host_and_port
from infertool.net.identify import Kind, identify, kind_of, plain_kind
from infertool.net.stream import PlainError
from infertool.net.tls import ClientTls, certificate_question, explain, openssl_reason
from infertool.secret import MASK, Secret
from infertool.settings.broker import BrokerSettings

# Short: an echo server would send our own login back, password and all.
_EXCERPT = 16


@dataclass(frozen=True, slots=True)
class Protocol:
    """What an adapter speaks, for errors.

    `schemes` are those of the broker URL, without and with TLS. `hello` is what the client says first, `others` what
    else may answer, and what to do then.
    """

    kind: Kind
    schemes: tuple[str, str]
    hello: str
    others: Mapping[Kind, tuple[str, str]]
    article: str = "a"
    # What starts a broker on this machine.
    starter: str = "start the broker"


def unreachable(target: Target, fault: OSError, *, ask: bool) -> UnreachableError:
    """Return the error for a connection that could not be made. With `ask` a server without TLS is asked what it is."""
    what, advice = _explain(target, fault, ask=ask)
    return UnreachableError(what, address=target.address, advice=advice)


def _explain(target: Target, fault: OSError, *, ask: bool) -> tuple[str, str]:
    address = target.address
    if isinstance(fault, PlainError | ssl.SSLError):
        return _explain_tls(target, fault, ask=ask)
    if isinstance(fault, socket.gaierror):
        return f"the host name {target.host!r} of {address} is unknown", "check broker.url"
    if isinstance(fault, ConnectionRefusedError):
        return f"nothing listens at {address}", _loopback_advice(target)
    if isinstance(fault, TimeoutError):
        return f"{address} did not answer within {target.connect_timeout_s:g} s", "check the address and firewalls"
    return f"{address} cannot be reached: {fault.strerror or fault}", "check broker.url"


def _explain_tls(target: Target, fault: PlainError | ssl.SSLError, *, ask: bool) -> tuple[str, str]:
    address = target.address
    if isinstance(fault, PlainError):
        return _plain(target, fault.kind)
    if known := explain(fault, address, "broker", shown=_shows(target)):
        return known
    if ask and (kind := plain_kind(target.host, target.port)):
        return _plain(target, kind)
    speaks = target.protocol
    advice = (
        f"is it {speaks.article} {speaks.schemes[1]} port, and {certificate_question('broker', shown=_shows(target))}?"
    )
    return f"TLS with {address} failed: {openssl_reason(fault)}", advice


def _shows(target: Target) -> bool:
    return target.tls is not None and target.tls.shows_certificate


def _loopback_advice(target: Target) -> str:
    if is_loopback(target.host):
        return target.protocol.starter
    return "check broker.url, and that the broker runs"


def is_loopback(host: str) -> bool:
    """Return True if `host` is this machine, by its name or address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _plain(target: Target, kind: Kind) -> tuple[str, str]:
    if kind in target.protocol.others and kind is not target.protocol.kind:
        return _other(target, kind)
    plain = target.protocol.schemes[0]
    return f"{target.address} speaks {kind} without TLS", f"use {plain}:// in broker.url: {plain}://{target.place}"


def _other(target: Target, kind: Kind) -> tuple[str, str]:
    what, advice = target.protocol.others[kind]
    return f"what answers at {target.address} is {what}, not {_named(target, 'broker')}", advice


def _named(target: Target, thing: str) -> str:
    return f"{target.protocol.article} {target.protocol.kind} {thing}"


def kind_behind(target: Target) -> Kind:
    """Ask a server that accepts and says nothing what it is."""
    return identify(target.host, target.port, target.tls.context if target.tls else None)


def silent(target: Target, kind: Kind) -> UnreachableError:
    """Return the error for a server, of `kind` as far as is known, that accepts and never answers the hello."""
    speaks = target.protocol
    within = f"within {target.connect_timeout_s:g} s"
    return _failed(
        target,
        kind,
        f"{target.address} accepts connections but did not answer {speaks.hello} {within}",
        f"is it {_named(target, 'port')}, and does it want TLS ({speaks.schemes[1]})?",
    )


def no_handshake(
    target: Target, first_bytes: bytes, reason: str, fault: OSError | None, *, ask: bool
) -> UnreachableError:
    """Return the error for a server that ended the handshake with something else than an answer.

    `fault` is what the socket said, if it did. If the server said nothing, it is asked what it is, with `ask`.
    """
    # With TLS 1.3 a server looks at the client's certificate when the client's handshake is over.
    if isinstance(fault, ssl.SSLError) and (known := explain(fault, target.address, "broker", shown=_shows(target))):
        return UnreachableError(known[0], address=target.address, advice=known[1])
    what, advice = f"{target.address} ended the handshake: {reason}", f"is it {_named(target, 'port')}?"
    if target.tls:
        advice = f"is it {_named(target, 'port')}, and {certificate_question('broker', shown=_shows(target))}?"
    kind = kind_of(first_bytes)
    if not first_bytes and not target.tls and ask:
        kind = identify(target.host, target.port)
    elif first_bytes and not kind:
        excerpt = first_bytes[:_EXCERPT]
        what = f"what answers at {target.address} is not {_named(target, 'broker')}: it sent {excerpt!r}"
    return _failed(target, kind, what, advice)


def _failed(target: Target, kind: Kind, what: str, advice: str) -> UnreachableError:
    if kind is Kind.TLS and not target.tls:
        encrypted = target.protocol.schemes[1]
        what, advice = f"{target.address} wants TLS", f"use {encrypted}:// in broker.url: {encrypted}://{target.place}"
    elif kind in target.protocol.others:
        what, advice = _other(target, kind)
    return UnreachableError(what, address=target.address, advice=advice)


def refused(target: Target, reason: str) -> RefusedError:
    """Return the error for a broker that refused the login."""
    return RefusedError(
        f"{target.address} refused the login: {reason}",
        address=target.address,
        reason=reason,
        advice=f"check broker.user and broker.password{', and the virtual host in broker.url' if target.vhost else ''}",
    )


def no_vhosts(target: Target, name: str) -> RefusedError:
    """Return the error for a broker, by the `name` of its kind, that would ignore the virtual host of the URL."""
    reason = f"{name} has no virtual hosts"
    return RefusedError(
        f"{target.address}: {reason}",
        address=target.address,
        reason=reason,
        advice=f"take /{quote(target.vhost, safe='')} out of broker.url",
    )


@dataclass(frozen=True, slots=True)
class Target:
    """A host of a broker URL. Times are seconds; `heartbeat_s` 0 means none; `tls` None means plain.

    Password and TLS files are read again for each connection, by `fresh`.
    """

    protocol: Protocol = field(repr=False)
    scheme: str
    host: str
    port: int
    user: str
    password: Secret
    tls: ClientTls | None = field(repr=False)
    heartbeat_s: float
    connect_timeout_s: float
    receipt_timeout_s: float
    # Empty for the default one.
    vhost: str = ""

    @property
    def address(self) -> str:
        """The address for people: no user, no password."""
        return f"{self.scheme}://{self.place}{'/' if self.vhost else ''}{quote(self.vhost, safe='')}"

    @property
    def place(self) -> str:
        """Host and port."""
        return host_and_port(self.host, self.port)

    def fresh(self) -> Target:
        """Return the target with the files' present content, for one connection.

        Raises UnreachableError for a file that cannot be used now: it may be in the middle of a rotation.
        """
        try:
            password = self.password.fixed()
            _check(password)
            return replace(self, password=password, tls=self.tls and self.tls.fresh())
        except SettingsError as fault:
            raise UnreachableError(fault.what, address=self.address, advice=fault.advice) from None

    def masked(self, text: str) -> str:
        """Return `text`, which a server wrote, without the password."""
        secret = self.password.reveal()
        # A password that equals the user name is no secret, and masking it would garble the server's own words.
        return text.replace(secret, MASK) if secret and secret != self.user else text


def targets(settings: BrokerSettings, url: BrokerUrl, protocol: Protocol) -> tuple[Target, ...]:
    """Return the hosts of `url`. Its user part goes before the settings'. Raises SettingsError for TLS files."""
    user, password = url.user or settings.user, url.password or settings.password
    _check(Secret(user), password)
    tls = ClientTls("broker", settings) if url.scheme == protocol.schemes[1] else None
    return tuple(
        Target(
            protocol, url.scheme, host, port, user, password, tls,
            settings.heartbeat_s, settings.connect_timeout_s, settings.receipt_timeout_s, url.vhost,
        )
        for host, port in url.hosts
    )  # fmt: skip


def _check(*texts: Secret) -> None:
    if any(end in text.reveal() for text in texts for end in "\r\n\0"):
        # STOMP's CONNECT has no escapes, so the rest would become headers; a NUL ends a part of AMQP's login.
        raise SettingsError("the broker's user or password holds a line break", key="broker.password")
