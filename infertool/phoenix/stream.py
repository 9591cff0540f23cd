"""A TCP or TLS connection that one thread reads, another writes, and any thread may end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

_FINAL_TEXT = 0x81
_LONGEST_SHORT = 125
_TWO_BYTES = 126


def whole_texts(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the texts of such frames from `at` on, up to anything else, and where that begins."""
    texts: list[bytes] = []
    # A frame of less than 4 bytes at the very end is left to others: then no index below can be out of range.
    last = len(data) - 4
    while at <= last and data[at] == _FINAL_TEXT:
        size = data[at + 1]
        begin = at + 2
        if size == _TWO_BYTES:
            size = data[at + 2] << 8 | data[at + 3]
            begin = at + 4
        elif size > _LONGEST_SHORT:
            break
        end = begin + size
        if end > len(data):
            break
        texts.append(data[begin:end])
        at = end
    return texts, at


try:  # websockets itself chooses in this way: C where there is a wheel for the platform
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_FIN: Final = 0x80
_MASKED: Final = 0x80
_SHORT, _MEDIUM = 126, 1 << 16
_KEY_BYTES: Final = 4


def frames(messages: Sequence[bytes], opcode: int) -> Iterator[bytes]:
    """Yield a whole frame for each of `messages`, masked with a key of its own."""
    keys = os.urandom(_KEY_BYTES * len(messages))
    for number, message in enumerate(messages):
        key = keys[_KEY_BYTES * number : _KEY_BYTES * (number + 1)]
        yield b"%b%b%b" % (_head(len(message), opcode), key, apply_mask(message, key))


def _head(length: int, opcode: int) -> bytes:
    if length < _SHORT:
        return bytes((_FIN | opcode, _MASKED | length))
    if length < _MEDIUM:
        return struct.pack("!BBH", _FIN | opcode, _MASKED | _SHORT, length)
    return struct.pack("!BBQ", _FIN | opcode, _MASKED | _SHORT + 1, length)


_READ_SIZE = 1 << 16
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BufferEmptyError(Exception):
    """All that was received has been taken."""


class Stream:
    """A buffered, non-blocking socket.

    OpenSSL lets only one thread at a time into a TLS session, so a lock guards every call into the socket and all
    waiting is done outside of it. `recv`, `send`, `gettimeout` and `settimeout` are what websocket-client asks of a
    socket during its handshake; buffered, because it reads a handshake byte by byte and a frame in three pieces.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._lock = threading.Lock()
        self._deadline: float | None = deadline
        self._buffer = b""
        self._at = 0

    def handshaken(self) -> None:
        """Drop the deadline of the handshake: from now on reads and writes wait as long as it takes."""
        self._deadline = None

    @property
    def newest(self) -> bytes:
        """What was received last, taken or not."""
        return self._buffer

    def take(self, size: int) -> bytes:
        """Return 1 to `size` bytes of what was received. Raises `BufferEmptyError`."""
        chunk = self._buffer[self._at : self._at + size]
        if not chunk:
            raise BufferEmptyError
        self._at += len(chunk)
        return chunk

    def take_texts(self) -> list[bytes]:
        """Return the texts of the whole text frames that come next in what was received; maybe none."""
        texts, self._at = whole_texts(self._buffer, self._at)
        return texts

    def fill(self) -> None:
        """Wait for bytes to take. Raises `OSError`, `ConnectionResetError` at the end of the stream."""
        data = self._receive()
        if not data:
            raise ConnectionResetError("the connection ended without a close frame")
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def fills_within(self, seconds: float) -> bool:
        """Return True if bytes to take, or the end of the stream, come in time. Raises `OSError`.

        Raises `TimeoutError` at the deadline of the handshake.
        """
        deadline = self._deadline
        soon = time.monotonic() + seconds
        self._deadline = soon if deadline is None else min(deadline, soon)
        try:
            self.fill()
        except ConnectionResetError:
            return True
        except TimeoutError:
            if deadline is not None and time.monotonic() >= deadline:
                raise
            return False
        finally:
            self._deadline = deadline
        return True

    def recv(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end of the stream. Raises `TimeoutError` at the deadline."""
        if self._at == len(self._buffer):
            with contextlib.suppress(ConnectionResetError):
                self.fill()
        try:
            return self.take(size)
        except BufferEmptyError:
            return b""

    def send_some(self, data: bytes) -> bytes:
        """Write what can be written without waiting; return the rest. `send` will meet an error again."""
        with contextlib.suppress(OSError), self._lock:
            return data[self._sock.send(data) :]
        return data

    def send(self, data: bytes) -> int:
        """Write all of `data`. Raises `OSError`."""
        view = memoryview(data)
        while view:
            view = view[self._send_some(view) :]
        return len(data)

    def settimeout(self, _timeout: float | None) -> None:
        """Ignore: the deadline rules."""

    def gettimeout(self) -> None:
        """Return None: no timeout for a single call."""

    def end(self) -> None:
        """End both directions and wake whoever reads or writes. Any thread, any number of times."""
        # Not SSLSocket.shutdown: it would make the reader take ciphertext for frames.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the socket. Only when no thread reads or writes any more."""
        self._sock.close()

    def _receive(self) -> bytes:
        while True:
            try:
                with self._lock:
                    return self._sock.recv(_READ_SIZE)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except _WOULD_BLOCK:
                self._wait(select.POLLIN)

    def _send_some(self, view: memoryview) -> int:
        while True:
            try:
                with self._lock:
                    return self._sock.send(view)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except _WOULD_BLOCK:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._sock, event)
        if self._deadline is None:
            poll.poll()
        elif not poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            raise TimeoutError("no answer in time")
