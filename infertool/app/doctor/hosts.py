"""Checks of one host of a URL: does it take connections, and is its certificate accepted, and for how long."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from infertool.app.doctor.check import Check
from infertool.app.doctor.result import Finding, fail, ok, skip, warn
from infertool.app.doctor.words import duration
from infertool.net.certificate import Shown, shown_by
from infertool.net.identify import plain_kind
from infertool.net.tls import explain, openssl_reason

_DAY_S: Final = 86_400.0
# What is valid for less than this should be renewed. Seconds.
SOON_S: Final = 14 * _DAY_S
_MARGIN_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A host to connect to. `group` is the settings group, `key` that of the URL; `context` is None without TLS."""

    group: str
    key: str
    host: str
    port: int
    timeout_s: float
    context: Callable[[], ssl.SSLContext] | None
    shows_certificate: bool
    verifies: bool = True

    @property
    def name(self) -> str:
        """Host and port."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def checks(place: Place, *needs: Check) -> tuple[Check, Check]:
    """Return the checks of TCP and of TLS."""
    timeout_s = place.timeout_s + _MARGIN_S
    tcp = Check(
        name=f"{place.group}.tcp", subject=place.name, run=lambda: reach(place), needs=needs, timeout_s=timeout_s
    )
    tls = Check(
        name=f"{place.group}.tls", subject=place.name, run=lambda: _tls(place), needs=(tcp,), timeout_s=2 * timeout_s
    )
    return tcp, tls


def reach(place: Place) -> Finding:
    """Connect to a host, and send nothing."""
    began = time.monotonic()
    check_url = f"check {place.key}, the network, and that the server runs"
    try:
        connection = socket.create_connection((place.host, place.port), place.timeout_s)
    except (socket.gaierror, UnicodeError):
        return fail(f"the host name {place.host} is unknown", f"check {place.key}, and the name server")
    except ConnectionRefusedError:
        return fail("nothing listens there: connection refused", check_url)
    except TimeoutError:
        return fail(f"no connection within {place.timeout_s:g} s", f"{check_url}; a firewall may drop packets")
    except OSError as fault:
        return fail(f"no connection: {fault.strerror or fault}", check_url)
    took_s = time.monotonic() - began
    with closing(connection):
        peer = connection.getpeername()[0]
    return ok(f"connected to {peer} in {duration(took_s)}", took_s, "seconds")


def _tls(place: Place) -> Finding:
    if place.context is None:
        return skip("the URL is one without TLS: what is sent can be read on the way")
    question = f"is this port one with TLS? Check {place.key}"
    try:
        shown = shown_by(place.host, place.port, place.context(), place.timeout_s)
    except ssl.SSLError as fault:
        known = explain(fault, place.name, place.group, shown=place.shows_certificate)
        return fail(*(known or _without(place) or (f"no TLS: {openssl_reason(fault)}", question)))
    except OSError as fault:
        return fail(*(_without(place) or (f"no TLS: {fault.strerror or fault}", question)))
    return _judge(place, shown)


def _without(place: Place) -> tuple[str, str] | None:
    """Ask a server that gave no TLS what it speaks without."""
    kind = plain_kind(place.host, place.port)
    advice = f"write a URL without TLS in {place.key}, or the port with TLS"
    return (f"{place.name} speaks {kind} without TLS", advice) if kind else None


def _judge(place: Place, shown: Shown) -> Finding:
    left_s = None if shown.ends is None else shown.ends - time.time()
    until = "" if left_s is None else f", {'expires in' if left_s > 0 else 'expired'} {duration(abs(left_s))}"
    if left_s is not None and left_s <= 0:
        until += " ago"
    value = f"{shown.version}{until}"
    if shown.fault:
        what, advice = explain(shown.fault, place.name, place.group, shown=place.shows_certificate) or (
            openssl_reason(shown.fault), "",
        )  # fmt: skip
        return fail(f"{what} ({value})", advice, left_s, "seconds")
    if not place.verifies:
        hint = f"set {place.group}.tls_ca_file, and {place.group}.tls_verify to true: anybody could be that server"
        return warn(f"{value}; the certificate is not checked", hint, left_s, "seconds")
    if left_s is not None and left_s < SOON_S:
        return warn(value, "have the server's certificate renewed", left_s, "seconds")
    return ok(value, left_s, "seconds")
