"""A connected socket that two threads use, and a dialer that connects it: TCP, optionally TLS."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from infertool.net.identify import Kind, answers_hello, plain_kind
from infertool.net.tls import ClientTls

READ_BYTES: Final = 65536
_QUICKACK: Final[int] = getattr(socket, "TCP_QUICKACK", 0)
# Longest wait for bytes that TLS has to read before it can write: the reader may already have taken them. Seconds.
_TLS_RETRY_S: Final = 0.05


class StalledError(OSError):
    """The peer accepted no bytes within the time limit."""


class PlainError(OSError):
    """A server that was asked for TLS speaks `kind` without it."""

    def __init__(self, kind: Kind) -> None:
        self.reason = f"it speaks {kind} without TLS"
        super().__init__(self.reason)
        self.kind = kind


class Stream:
    """A connected socket, non-blocking: both threads can time out, and neither is stuck in the kernel.

    Two threads must not use one SSL object at once (Python 3.11 does not lock it), so with TLS each recv and send holds
    a lock. Waits happen without it. `delays_writes`: the server does not set TCP_NODELAY.
    """

    def __init__(self, connected: socket.socket, *, delays_writes: bool = True) -> None:
        connected.settimeout(0)
        self._socket = connected
        is_tls = isinstance(connected, ssl.SSLSocket)
        self._guard = threading.Lock() if is_tls else contextlib.nullcontext()
        self._acks_late = delays_writes and _QUICKACK != 0 and connected.family in {socket.AF_INET, socket.AF_INET6}
        # TLS may hold bytes that the socket has given already.
        self._may_hold_more = is_tls
        self._is_empty = False
        self._readable = select.poll()
        self._readable.register(connected, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connected, select.POLLOUT)

    def read(self, timeout_s: float) -> bytes | None:
        """Return received bytes, b"" at the stream's end, None if none arrive within `timeout_s`."""
        data = None if self._is_empty else self._receive()
        if data is None and self._readable.poll(timeout_s * 1000):
            data = self._receive()
        # After a short read there is nothing: to ask the socket once more takes longer than all else here.
        self._is_empty = not self._may_hold_more and data is not None and len(data) < READ_BYTES
        return data

    def _receive(self) -> bytes | None:
        try:
            with self._guard:
                data = self._socket.recv(READ_BYTES)
                self._acknowledge()
                return data
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _acknowledge(self) -> None:
        """Have the kernel send TCP acks at once. Linux resets the option after a while, so it is set after each read.

        ActiveMQ does not set TCP_NODELAY: its second small answer waits for the TCP ack of the first, which takes 40 ms
        while we write nothing. Measured: a quarter fewer moves a second.
        """
        if self._acks_late:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def write_some(self, data: bytes) -> bytes:
        """Write as much as possible without waiting; return the rest. `write` raises an error."""
        with contextlib.suppress(OSError), self._guard:
            return data[self._socket.send(data) :]
        return data

    def write(self, data: bytes, patience_s: float, *, goes_on: Callable[[], bool] = lambda: False) -> None:
        """Write all of `data`. Raises StalledError if the peer accepts nothing for `patience_s`, else OSError.

        After that time `goes_on` is asked whether to wait once more.
        """
        rest = memoryview(data)
        while rest:
            try:
                with self._guard:
                    rest = rest[self._socket.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                if not self._writable.poll(patience_s * 1000) and not goes_on():
                    raise StalledError(f"the broker took nothing for {patience_s:g} s") from None
            except ssl.SSLWantReadError:
                self._readable.poll(_TLS_RETRY_S * 1000)

    def shut(self) -> None:
        """Wake both threads: their next read or write ends. The descriptor stays open until `close`."""
        shut(self._socket)

    def close(self) -> None:
        """Close the descriptor. No thread may use it any more."""
        self._socket.close()


def shut(any_socket: socket.socket) -> None:
    """Shut `any_socket` down, from any thread. On Linux this also ends a pending connect."""
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: it drops the TLS layer, and the reader would parse ciphertext as frames.
        socket.socket.shutdown(any_socket, socket.SHUT_RDWR)


class Dialer:
    """Connects once to one host. The socket has TCP_NODELAY: without, a request and its reply take 44 ms.

    With `ask`, a server that does not answer in TLS is probed, over other connections, for the protocol it speaks.
    """

    def __init__(self, host: str, port: int, tls: ClientTls | None, timeout_s: float, *, ask: bool) -> None:
        self._host, self._port = host, port
        self._tls = tls
        self._ask = ask
        self._deadline = time.monotonic() + timeout_s
        self._socket: socket.socket | None = None
        self._aborted = False

    def connect(self) -> socket.socket:
        """Return a connected socket, made within the time. Raises `OSError`."""
        fault: OSError | None = None
        addresses = _resolve(self._host, self._port)
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            dialled = self._socket = socket.socket(family, kind, protocol)
            try:
                return self._connect(dialled, address, len(addresses) - number)
            except OSError as refusal:
                self._socket.close()
                fault = refusal
        raise fault or OSError(f"{self._host} has no address")

    def _connect(self, dialled: socket.socket, address: Any, addresses_left: int) -> socket.socket:
        # An address that never answers must leave time for the next: `localhost` may be ::1 first.
        self._limit_wait(dialled, addresses_left)
        dialled.connect(address)
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return dialled
        encrypted = self._tls.context.wrap_socket(dialled, server_hostname=self._host, do_handshake_on_connect=False)
        self._socket = encrypted
        if self._ask and not answers_hello(encrypted) and (kind := plain_kind(self._host, self._port)):
            raise PlainError(kind)
        self._limit_wait(encrypted)
        encrypted.do_handshake()
        return encrypted

    def _limit_wait(self, dialled: socket.socket, shares: int = 1) -> None:
        left = self._deadline - time.monotonic()
        if self._aborted or left <= 0:
            raise TimeoutError("timed out")
        dialled.settimeout(left / shares)

    def abort(self) -> None:
        """End the attempt, from any thread."""
        self._aborted = True
        if self._socket is not None:
            shut(self._socket)


def _resolve(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
