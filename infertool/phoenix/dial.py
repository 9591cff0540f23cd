"""The hosts of a Phoenix URL, and the opening of a WebSocket to one of them: TCP, TLS, the upgrade, errors.

No error here contains text of websocket-client: its exceptions and its log may contain the URL and the headers, and so
the token. For the same reason every error is raised outside of the except block that caught its cause.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from http.cookies import CookieError
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import websocket

from infertool.errors import RefusedError, ServerError, SettingsError, UnreachableError
from infertool.net.address import host_and_port
from infertool.net.http_faults import instead, wants_tls
from infertool.net.identify import HELLO_S, Kind, answers_hello, identify, kind_of, plain_kind
from infertool.net.stream import Dialer
from infertool.net.tls import certificate_question, client_context, explain, openssl_reason
from infertool.phoenix.stream import Stream
from infertool.secret import Secret

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings


VSN = "2.0.0"
_PORTS = {"ws": 80, "wss": 443}
_EXAMPLE = "write it as ws://host:4000/socket/websocket"


@dataclass(frozen=True, slots=True)
class Target:
    """One host of the URL. `params` may hold the token; `address` holds no secrets."""

    scheme: str
    host: str
    port: int
    path: str
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    token: Secret = field(default_factory=Secret)

    @property
    def secure(self) -> bool:
        """True if the connection uses TLS."""
        return self.scheme == "wss"

    @property
    def address(self) -> str:
        """The URL without user part and parameters."""
        return f"{self.scheme}://{host_and_port(self.host, self.port)}{self.path}"

    @property
    def loopback(self) -> bool:
        """True if the host is a loopback name or address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def fresh(self) -> Target:
        """Return the target with the current token, for one connection. Raises `SettingsError`."""
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

    The token is that of the settings, else the password in the URL's user part, else its parameter `token`.
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


_HTTP = b"HTTP/"


class OtherServerError(Exception):
    """The server's first bytes, or its silence, show that it speaks `kind`; UNKNOWN is any protocol but HTTP."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind


class Handshake:
    """The stream, up to the answer to the upgrade. websocket-client waits for a line that other servers may never end.

    So the first bytes are examined at once. After a short silence, `ask`, if given, identifies the server.
    """

    def __init__(self, stream: Stream, ask: Callable[[], Kind] | None) -> None:
        self.stream = stream
        self._ask = ask
        self._judged = False
        self.send, self.close = stream.send, stream.close
        self.settimeout, self.gettimeout = stream.settimeout, stream.gettimeout

    def recv(self, size: int) -> bytes:
        """See `Stream`. Raises `OtherServerError`."""
        if not self._judged:
            self._judge()
            self._judged = True
        return self.stream.recv(size)

    def ask_other(self) -> Kind:
        """Return the protocol of the server if it is another than HTTP, and may be asked for, else `Kind.UNKNOWN`."""
        kind = self._ask() if self._ask else Kind.UNKNOWN
        return Kind.UNKNOWN if kind is Kind.HTTP else kind

    def _judge(self) -> None:
        while not self.stream.fills_within(HELLO_S):
            if kind := self.ask_other():
                raise OtherServerError(kind)
            self._ask = None  # it may be a slow Phoenix
        start = self.stream.newest[: len(_HTTP)]
        if not _HTTP.startswith(start):
            raise OtherServerError(kind_of(self.stream.newest))


_PROTOCOL = "phoenix"
_TOKEN_PREFIX = "base64url.bearer.phx."  # noqa: S105 - what precedes the token on the wire
_FORBIDDEN = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


def dial(target: Target, settings: PhoenixSettings, *, ask: bool) -> Stream:
    """Connect to `target` and upgrade, within `settings.connect_timeout_s` altogether.

    With `ask`, a silent server is identified on other connections, which may take three seconds more.

    Raises `RefusedError` if Phoenix refuses, `UnreachableError` if no server or another one answers, and
    `SettingsError` for a token's or TLS file that cannot be read now.
    """
    target = target.fresh()
    deadline = time.monotonic() + settings.connect_timeout_s
    context = client_context("phoenix", settings) if target.secure else None
    stream = Stream(_open(target, settings, context, deadline, ask=ask), deadline)
    handshake = Handshake(stream, partial(identify, target.host, target.port, context) if ask else None)
    failure = _upgrade(handshake, target, settings, ask=ask)
    if failure:
        stream.close()
        raise failure
    stream.handshaken()
    return stream


def _open(
    target: Target, settings: PhoenixSettings, context: ssl.SSLContext | None, deadline: float, *, ask: bool
) -> socket.socket:
    failure: ServerError | None
    sock, kind = None, Kind.UNKNOWN
    try:
        sock = Dialer(target.host, target.port, None, settings.connect_timeout_s, ask=False).connect()
        if context is None:
            return sock
        sock = tls = context.wrap_socket(sock, server_hostname=target.host, do_handshake_on_connect=False)
        if not ask or answers_hello(tls) or not (kind := plain_kind(target.host, target.port)):
            tls.settimeout(max(0.001, deadline - time.monotonic()))
            tls.do_handshake()
            return tls
        failure = _instead(target, kind)
    except (OSError, UnicodeError) as error:
        failure = _no_connection(error, target, settings, ask=ask)
    if sock:
        sock.close()
    raise failure or _not_phoenix(target.address, "no TLS")


def _no_connection(error: Exception, target: Target, settings: PhoenixSettings, *, ask: bool) -> ServerError:
    address = target.address
    if isinstance(error, socket.gaierror | UnicodeError):
        return _unreachable(f"the host of {address} is unknown", address, "check phoenix.url")
    if isinstance(error, ConnectionRefusedError):
        start = "`infertool dev` starts a channel server" if target.loopback else "check phoenix.url"
        return _unreachable(f"nothing listens at {address}", address, start)
    if isinstance(error, TimeoutError):
        what = f"no connection to {address} within {settings.connect_timeout_s:g} s"
        return _unreachable(what, address, "check phoenix.url and the network")
    if isinstance(error, ssl.SSLError):
        return _no_tls(error, target, shown=bool(settings.tls_cert_file), ask=ask)
    return _unreachable(f"no connection to {address}: {getattr(error, 'strerror', None) or error}", address)


def _no_tls(error: ssl.SSLError, target: Target, *, shown: bool, ask: bool) -> UnreachableError:
    address = target.address
    if known := explain(error, address, "phoenix", shown=shown):
        return _unreachable(known[0], address, known[1])
    if ask and (instead := _instead(target, plain_kind(target.host, target.port))):
        return instead
    advice = "should the URL be ws:// instead of wss://"
    if isinstance(error, ssl.SSLEOFError):
        advice += f", or {certificate_question('phoenix', shown=shown)}"
    return _unreachable(f"no TLS at {address}: {openssl_reason(error)}", address, f"{advice}?")


def _upgrade(handshake: Handshake, target: Target, settings: PhoenixSettings, *, ask: bool) -> ServerError | None:
    in_protocol = settings.token_in == "protocol" and bool(target.token)  # noqa: S105 - a place, no token
    websocket.enableTrace(traceable=False)
    try:
        upgraded = websocket.create_connection(
            target.url(token_in_params=not in_protocol),
            socket=handshake,
            # As a plain header: given as subprotocols, websocket-client logs the token when none is chosen.
            header=[_protocol_header(target)] if in_protocol else [],
            origin=settings.origin or None,
            suppress_origin=not settings.origin,
            redirect_limit=0,
        )
    except websocket.WebSocketBadStatusException as error:
        return _by_status(error.status_code, target, ask=ask)
    except websocket.WebSocketTimeoutException:
        what = f"{target.address} accepted the connection but did not answer within {settings.connect_timeout_s:g} s"
        return _unreachable(what, target.address, "is the server Phoenix?")
    except OtherServerError as other:
        return _instead(target, other.kind) or _not_phoenix(target.address, "no WebSocket handshake")
    except (websocket.WebSocketException, OSError, ValueError, CookieError) as error:
        return _not_upgraded(error, handshake, target, settings)
    if in_protocol and (upgraded.getheaders() or {}).get("sec-websocket-protocol") != _PROTOCOL:
        what = f"{target.address} does not read a token from Sec-WebSocket-Protocol"
        return RefusedError(what, address=target.address, advice="set phoenix.token_in to params")
    return None


def _not_upgraded(error: Exception, handshake: Handshake, target: Target, settings: PhoenixSettings) -> ServerError:
    shown = bool(settings.tls_cert_file)
    if isinstance(error, CookieError):  # websocket-client reads cookies, which nobody here needs
        return _not_phoenix(target.address, "it sets a cookie whose name is none")
    # With TLS 1.3 a server looks at the client's certificate when the client's handshake is over.
    if isinstance(error, ssl.SSLError) and (known := explain(error, target.address, "phoenix", shown=shown)):
        return _unreachable(known[0], target.address, known[1])
    if newest := handshake.stream.newest:
        return _instead(target, kind_of(newest)) or _not_phoenix(target.address, "no WebSocket handshake")
    # What a server sent before it closed is lost if it did not read our request to the end.
    if other := _instead(target, handshake.ask_other()):
        return other
    advice = "check phoenix.url; if the server wants TLS, write wss://"
    if target.secure:
        advice = f"check phoenix.url; {certificate_question('phoenix', shown=shown)}?"
    return _not_phoenix(target.address, "it closed the connection without an answer", advice)


def _protocol_header(target: Target) -> str:
    # Standard base64, whatever the prefix says: Phoenix 1.8 reads it with Base.decode64!, its own client writes btoa.
    token = base64.b64encode(target.token.reveal().encode()).decode().rstrip("=")
    return f"Sec-WebSocket-Protocol: {_PROTOCOL}, {_TOKEN_PREFIX}{token}"


def _by_status(status: int | None, target: Target, *, ask: bool) -> ServerError:
    address = target.address
    if ask and status == HTTPStatus.BAD_REQUEST and (tls := wants_tls(address, "phoenix.url")):
        return _unreachable(tls[0], address, tls[1])
    if status in _FORBIDDEN:
        return RefusedError(
            f"{address} refused the connection ({status})",
            address=address,
            reason=str(status),
            advice="a wrong token, origin or protocol version all look like this: check PHOENIX_SERVICE_TOKEN "
            "(phoenix.token, phoenix.token_in), then phoenix.origin against the endpoint's check_origin",
        )
    if status == HTTPStatus.NOT_FOUND:
        advice = "check the path of phoenix.url: a socket at /socket is reached at /socket/websocket"
        return _unreachable(f"no socket at {address} (404)", address, advice)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        what = f"{address} failed while connecting (500)"
        return RefusedError(what, address=address, reason="500", advice="see the server's log")
    return _not_phoenix(address, f"HTTP status {status}")


def _not_phoenix(address: str, what: str, advice: str = "check phoenix.url") -> UnreachableError:
    return _unreachable(f"{address} answers, but not as a Phoenix socket ({what})", address, advice)


def _instead(target: Target, kind: Kind) -> UnreachableError | None:
    """Return the error that names the server's protocol; None if it is unknown or may be Phoenix's."""
    found = instead(target.address, kind, "phoenix.url")
    return _unreachable(found[0], target.address, found[1]) if found else None


def _unreachable(what: str, address: str, advice: str = "") -> UnreachableError:
    return UnreachableError(what, address=address, advice=advice)
