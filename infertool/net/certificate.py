"""The certificate that a server shows: whether it is accepted, and until when it is valid."""

from __future__ import annotations

import datetime as dt
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

# Validity is a sequence of two times (X.509, 4.1.2.5): UTCTime with two digits of the year, or GeneralizedTime.
_TIME: Final = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
_VALIDITY: Final = re.compile(rb"\x30[\x1e-\x22]" + _TIME + _TIME, re.DOTALL)
_CENTURY: Final = 50


@dataclass(frozen=True, slots=True)
class Shown:
    """What a server showed. `ends` is the end of its validity (seconds since the epoch), None if it cannot be read.

    `fault` is why the certificate was not accepted.
    """

    version: str
    ends: float | None
    fault: ssl.SSLError | None = None


def shown_by(host: str, port: int, context: ssl.SSLContext, timeout_s: float) -> Shown:
    """Connect, and return the certificate of the server, accepted or not.

    Raises `OSError` where there is no connection, or no TLS at all.
    """
    deadline = time.monotonic() + timeout_s
    try:
        return _handshake(host, port, context, deadline)
    except ssl.SSLCertVerificationError as fault:
        seen = _handshake(host, port, _accepting_all(), deadline)
        return Shown(seen.version, seen.ends, fault)


def _handshake(host: str, port: int, context: ssl.SSLContext, deadline: float) -> Shown:
    left_s = max(0.01, deadline - time.monotonic())
    with socket.create_connection((host, port), left_s) as line, context.wrap_socket(line, server_hostname=host) as tls:
        return Shown(tls.version() or "", validity_end(tls.getpeercert(binary_form=True) or b""))


def _accepting_all() -> ssl.SSLContext:
    # To read the end of a certificate that was refused. Nothing is sent over this connection.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def validity_end(certificate: bytes) -> float | None:
    """Return the end of the validity of a certificate in DER form, in seconds since the epoch; None if unreadable."""
    found = _VALIDITY.search(certificate)
    if found is None:
        return None
    short, full = found[3], found[4]
    if short:
        full = (b"20" if int(short[:2]) < _CENTURY else b"19") + short
    try:
        return dt.datetime.strptime(full.decode(), "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        return None
