"""Identifies the protocol of a server. Used after a failed connection, so that the error can name it."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import time
from enum import StrEnum
from typing import Final

# A server of the expected protocol answers within milliseconds. After this silence it is probed. Seconds.
HELLO_S: Final = 1.0
# Maximum time for each probe. Seconds.
_PROBE_S: Final = 1.0
# Bytes that suffice to recognise a protocol.
_ENOUGH: Final = 64
_STOMP: Final = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0"
_HTTP: Final = b"GET / HTTP/1.0\r\n\r\n"


class Kind(StrEnum):
    """A protocol. UNKNOWN also stands for a server that sends nothing."""

    UNKNOWN = ""
    STOMP = "STOMP"
    TLS = "TLS"
    HTTP = "HTTP"
    OPENWIRE = "OpenWire"
    AMQP = "AMQP"
    MQTT = "MQTT"
    KAFKA = "Kafka"


_BEGINNINGS: Final = {
    b"CONNECTED\n": Kind.STOMP,
    b"CONNECTED\r\n": Kind.STOMP,
    b"ERROR\n": Kind.STOMP,
    b"ERROR\r\n": Kind.STOMP,
    b"HTTP/": Kind.HTTP,
    b"<": Kind.HTTP,
    b"\x15\x03": Kind.TLS,
    b"\x16\x03": Kind.TLS,
    b"AMQP": Kind.AMQP,
    b"\x20\x02": Kind.MQTT,
}
# OpenWire's first command follows a length of four bytes and a type.
_OPENWIRE: Final = re.compile(rb".{5}ActiveMQ", re.DOTALL)


def kind_of(first_bytes: bytes) -> Kind:
    """Return the protocol of a server whose output starts with `first_bytes`."""
    if _OPENWIRE.match(first_bytes):
        return Kind.OPENWIRE
    return next((kind for begin, kind in _BEGINNINGS.items() if first_bytes.startswith(begin)), Kind.UNKNOWN)


def identify(host: str, port: int, tls: ssl.SSLContext | None = None) -> Kind:
    """Probe the server on new connections, for up to 3 s. Sends no login.

    With `tls`, the server is known to speak TLS, and the probes run inside TLS.
    """
    if tls:
        return kind_of(_answer(host, port, _STOMP, tls)) or kind_of(_answer(host, port, _HTTP, tls))
    for ask in (_stomp, tls_kind, _http):
        if kind := ask(host, port):
            return kind
    return Kind.UNKNOWN


def plain_kind(host: str, port: int) -> Kind:
    """Probe the server without TLS, for up to 2 s."""
    kind = _stomp(host, port) or _http(host, port)
    return Kind.UNKNOWN if kind is Kind.TLS else kind


def tls_kind(host: str, port: int) -> Kind:
    """Return `Kind.TLS` if the server speaks TLS, asked for up to 1 s, else `Kind.UNKNOWN`."""
    # A server that answers with an alert speaks TLS: it may require a client certificate.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _PROBE_S) as line,
            context.wrap_socket(line, server_hostname=host),
        ):
            return Kind.TLS
    except ssl.SSLError as fault:
        return Kind.TLS if "ALERT" in (fault.reason or "") else Kind.UNKNOWN
    except (OSError, UnicodeError):
        return Kind.UNKNOWN


def answers_hello(connected: ssl.SSLSocket) -> bool:
    """Start the TLS handshake; return True if the server answers within `HELLO_S`. Raises `OSError`.

    A server without TLS may wait for more input. The socket is left non-blocking.
    """
    connected.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):
        connected.do_handshake()
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(HELLO_S * 1000))


def _stomp(host: str, port: int) -> Kind:
    return kind_of(_answer(host, port, _STOMP))


def _http(host: str, port: int) -> Kind:
    return kind_of(_answer(host, port, _HTTP))


def _answer(host: str, port: int, question: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    deadline = time.monotonic() + _PROBE_S
    answer = b""
    with contextlib.suppress(OSError, UnicodeError), contextlib.ExitStack() as stack:
        line = stack.enter_context(socket.create_connection((host, port), _PROBE_S))
        if tls:
            line = stack.enter_context(tls.wrap_socket(line, server_hostname=host))
        line.sendall(question)
        while len(answer) < _ENOUGH and (left_s := deadline - time.monotonic()) > 0:
            line.settimeout(left_s)
            data = line.recv(_ENOUGH)
            answer += data
            if not data or kind_of(answer):
                break
    return answer
