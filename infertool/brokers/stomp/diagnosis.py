"""Why a broker could not be reached, in words that help."""

from __future__ import annotations

import socket
import ssl
from ipaddress import ip_address

from infertool.brokers.stomp.target import Target
from infertool.errors import RefusedError, UnreachableError

# Short: an echo server would send our own CONNECT back, passcode and all.
_EXCERPT = 16
_TLS_ALERT = b"\x15\x03"


def unreachable(target: Target, fault: OSError) -> UnreachableError:
    """Return the error for a connection that could not be made."""
    what, advice = _explain(target, fault)
    return UnreachableError(what, address=target.address, advice=advice)


def _explain(target: Target, fault: OSError) -> tuple[str, str]:
    address = target.address
    if isinstance(fault, socket.gaierror):
        return f"the host name {target.host!r} of {address} is unknown", "check broker.url"
    if isinstance(fault, ssl.SSLCertVerificationError):
        advice = "trust its authority with broker.tls_ca_file, or check the host name in broker.url"
        return f"the certificate of {address} is not accepted: {fault.verify_message}", advice
    if isinstance(fault, ssl.SSLError):
        return f"TLS with {address} failed: {fault.reason or fault}", "is it a stomp+ssl port?"
    if isinstance(fault, ConnectionRefusedError):
        return f"nothing listens at {address}", _loopback_advice(target)
    if isinstance(fault, TimeoutError):
        return f"{address} did not answer within {target.connect_timeout_s:g} s", "check the address and firewalls"
    return f"{address} cannot be reached: {fault.strerror or fault}", "check broker.url"


def _loopback_advice(target: Target) -> str:
    if is_loopback(target.host):
        return "`infertool dev` starts a broker"
    return "check broker.url, and that the broker runs"


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine by its name or address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def silent(target: Target) -> UnreachableError:
    """Return the error for a server that accepts and never answers CONNECT."""
    return UnreachableError(
        f"{target.address} accepts connections but did not answer CONNECT within {target.connect_timeout_s:g} s",
        address=target.address,
        advice="is it a STOMP port, and does it want TLS (stomp+ssl)?",
    )


def no_handshake(target: Target, first_bytes: bytes, reason: str) -> UnreachableError:
    """Return the error for a server that ended the handshake with something else than CONNECTED or ERROR."""
    what, advice = f"{target.address} ended the handshake: {reason}", "is it a STOMP port?"
    if target.tls:
        advice = "is it a STOMP port, and does it want a client certificate (broker.tls_cert_file)?"
    if first_bytes.startswith((b"HTTP/", b"<")):
        what, advice = (
            f"what answers at {target.address} is an HTTP server, not a STOMP broker",
            "STOMP's port is mostly 61613",
        )
    elif first_bytes.startswith(_TLS_ALERT):
        what, advice = f"{target.address} wants TLS", "use stomp+ssl:// in broker.url"
    elif first_bytes and not first_bytes.startswith((b"CONNECTED", b"ERROR")):
        what = f"what answers at {target.address} is not a STOMP broker: it sent {first_bytes[:_EXCERPT]!r}"
    return UnreachableError(what, address=target.address, advice=advice)


def refused(target: Target, reason: str) -> RefusedError:
    """Return the error for a broker that answered CONNECT with ERROR."""
    return RefusedError(
        f"{target.address} refused the login: {reason}",
        address=target.address,
        reason=reason,
        advice="check broker.user and broker.password",
    )
