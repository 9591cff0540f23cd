"""A connected socket that one thread reads while another writes."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from typing import Final

READ_BYTES: Final = 65536
_QUICKACK: Final[int] = getattr(socket, "TCP_QUICKACK", 0)
# While TLS wants to read before it can write, the reader may already have taken those bytes: look again soon.
_TLS_RETRY_S: Final = 0.05


class StalledError(OSError):
    """The peer has not taken a byte for too long."""


class Stream:
    """Non-blocking, so that both threads can time out and neither can be stuck in the kernel.

    One SSL object must not be used by two threads at once (Python 3.11 has no lock of its own around it), so with
    TLS each recv and send holds a lock; waiting happens outside of it.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(0)
        self._socket = connected
        self._guard = threading.Lock() if isinstance(connected, ssl.SSLSocket) else contextlib.nullcontext()
        self._acks_late = _QUICKACK != 0 and connected.family in {socket.AF_INET, socket.AF_INET6}
        self._readable = select.poll()
        self._readable.register(connected, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connected, select.POLLOUT)

    def read(self, timeout_s: float) -> bytes | None:
        """Return what came, b"" at the stream's end, None when nothing came within `timeout_s`."""
        data = self._receive()
        if data is None and self._readable.poll(timeout_s * 1000):
            return self._receive()
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
        """Have the kernel acknowledge at once (Linux; it forgets after a while, so after each read).

        ActiveMQ does not set TCP_NODELAY: its second small answer waits until the first is acknowledged, which takes
        40 ms while we have nothing to write. Measured: it costs a quarter of the moves a second.
        """
        if self._acks_late:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def write_some(self, data: bytes) -> bytes:
        """Write what can be written without waiting; return the rest. `write` will meet an error again."""
        with contextlib.suppress(OSError), self._guard:
            return data[self._socket.send(data) :]
        return data

    def write(self, data: bytes, patience_s: float) -> None:
        """Write all of `data`. Raises StalledError when the peer takes nothing for `patience_s`, else OSError."""
        rest = memoryview(data)
        while rest:
            try:
                with self._guard:
                    rest = rest[self._socket.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                if not self._writable.poll(patience_s * 1000):
                    raise StalledError(f"the broker took nothing for {patience_s:g} s") from None
            except ssl.SSLWantReadError:
                self._readable.poll(_TLS_RETRY_S * 1000)

    def shut(self) -> None:
        """Wake both threads: their next read or write ends. The descriptor stays theirs until `close`."""
        shut(self._socket)

    def close(self) -> None:
        """Give the descriptor back, once no thread uses it."""
        self._socket.close()


def shut(any_socket: socket.socket) -> None:
    """End `any_socket` from any thread, whatever it is doing; Linux ends a pending connect this way, too."""
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: it drops the TLS layer, and the reader would take ciphertext for frames.
        socket.socket.shutdown(any_socket, socket.SHUT_RDWR)
