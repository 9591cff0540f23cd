"""Loopback ports for servers under test."""

from __future__ import annotations

import fcntl
import functools
import os
import secrets
import socket
import tempfile
import time
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
# A port is free until its server listens, which takes a JVM seconds: processes that test at the same time choose from
# ranges of their own. A process holds the lock of its range until it ends.
_RANGES = 16
_LOCKS = Path(tempfile.gettempdir()) / f"infertool-test-ports-{os.getuid()}"
_given: set[int] = set()


def free_port() -> int:
    """Return a port nobody has now, and no outgoing connection will have.

    A server cannot listen on the port of another program's outgoing connection, also for a minute after its end.
    """
    ports = _own_range()
    if len(_given) > len(ports) // 2:
        _given.clear()
    while True:
        port = secrets.choice(ports)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port


@functools.cache
def _own_range() -> range:
    """Return the first range that no other process has; the last one where all are taken."""
    _LOCKS.mkdir(exist_ok=True)
    width = (int(_EPHEMERAL.read_text().split()[0]) - _LOWEST) // _RANGES
    for number in range(_RANGES):
        lock = os.open(_LOCKS / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            break
    return range(_LOWEST + number * width, _LOWEST + (number + 1) * width)


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
