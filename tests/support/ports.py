"""Loopback ports for servers under test."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_given: set[int] = set()


def free_port() -> int:
    """Return a port nobody has now, and no outgoing connection will have.

    A server cannot listen on the port of another program's outgoing connection, also for a minute after its end.
    """
    lowest_outgoing = int(_EPHEMERAL.read_text().split()[0])
    while True:
        port = _LOWEST + secrets.randbelow(lowest_outgoing - _LOWEST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port


def listens(port: int) -> bool:
    """Return True if something takes connections on `port`."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def wait_for_port(port: int, timeout_s: float) -> None:
    """Wait until something listens on `port`; raise TimeoutError otherwise."""
    deadline = time.monotonic() + timeout_s
    while not listens(port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port} after {timeout_s} s")
        time.sleep(0.05)
