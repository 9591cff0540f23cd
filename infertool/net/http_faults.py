"""What to say of a server that gave no answer over HTTP or WebSockets: the reason, and the protocol that it speaks."""

from __future__ import annotations

import socket
import ssl
from http.client import BadStatusLine, RemoteDisconnected
from typing import Final
from urllib.parse import urlsplit

from infertool.net.identify import Kind, identify, plain_kind, tls_kind
from infertool.net.tls import openssl_reason

_PORTS: Final = {"http": 80, "https": 443}
# The scheme with TLS of one without, and the other way round.
_OTHER: Final = {"http": "https", "https": "http", "ws": "wss", "wss": "ws"}
_SECURE: Final = {"https", "wss"}
# Short: an echo server would send our own login back.
_EXCERPT: Final = 16


def instead(address: str, kind: Kind, setting: str) -> tuple[str, str] | None:
    """Return what the server at `address` is, and what to write in `setting`, by the protocol that it speaks.

    None if that is unknown, or may be the one that `address` names.
    """
    scheme, _, rest = address.partition("://")
    other, secure = _OTHER[scheme], scheme in _SECURE
    if kind is (Kind.HTTP if secure else Kind.TLS):
        what = "answers without TLS" if secure else "wants TLS"
        return f"{address} {what}", f"use {other}:// in {setting}: {other}://{rest}"
    if kind in {Kind.UNKNOWN, Kind.HTTP, Kind.TLS}:
        return None
    return f"what answers at {address} speaks {kind}, not HTTP", f"check the port in {setting}"


def hint(fault: Exception, address: str, setting: str, tls: ssl.SSLContext | None = None) -> tuple[str, str] | None:
    """Ask the server at an http(s) address, after `fault`, what it speaks, for up to 5 s; return as `instead`."""
    if isinstance(innermost(fault), ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError):
        return None
    # First of all TLS: some servers with TLS answer a request without in plain HTTP.
    if found := wants_tls(address, setting):
        return found
    host, port, secure = _place(address)
    if not (secure and tls_kind(host, port)):
        return instead(address, plain_kind(host, port), setting)
    kind = identify(host, port, tls or ssl.create_default_context())
    return None if kind is Kind.HTTP else instead(address, kind, setting)


def wants_tls(address: str, setting: str) -> tuple[str, str] | None:
    """Ask the server at an address with http, for up to 1 s, whether it speaks TLS; return as `instead`.

    For a server that answered 400: many with TLS give that answer, in plain HTTP, to a request without.
    """
    host, port, secure = _place(address)
    return None if secure else instead(address, tls_kind(host, port), setting)


def _place(address: str) -> tuple[str, int, bool]:
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme], parts.scheme in _SECURE


def reason(error: BaseException) -> str:
    """Return the message of the operating system or TLS, which HTTP libraries wrap in their own words."""
    inner = innermost(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {inner.verify_message.rstrip('.')}"
    if isinstance(inner, ssl.SSLError):
        return f"TLS failed: {openssl_reason(inner)}"
    if isinstance(inner, BadStatusLine) and not isinstance(inner, RemoteDisconnected):
        return f"it sent what is no HTTP: {str(inner)[:_EXCERPT]!r}"
    return getattr(inner, "strerror", None) or str(inner) or _unnamed(inner)


def innermost(error: BaseException) -> BaseException:
    """Return the error that caused all others."""
    inner = error.__cause__ or error.__context__ or next((a for a in error.args if isinstance(a, Exception)), None)
    return error if inner is None or inner is error else innermost(inner)


def _unnamed(error: BaseException) -> str:
    return "the server ended the connection" if isinstance(error, ConnectionError) else type(error).__name__
