"""Responses of `http.client` without the interim ones before them, whose head, or all, arrives within the timeout."""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from http.client import BadStatusLine, HTTPResponse
from typing import Any, Final

_INTERIM: Final = range(100, 200)
_SWITCHING: Final = 101


class FinalResponse(HTTPResponse):
    """The response class of our connections: `http.client` takes any interim response but 100 for the answer.

    The answer would then come later on a kept connection, and be taken for that of the next request.
    """

    is_limited_whole = False

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._bytes = _Bytes(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._bytes)

    def begin(self) -> None:
        """Read the status and the headers. Raises `TimeoutError` after the socket's timeout, however they trickle."""
        super().begin()
        while self.status in _INTERIM:
            if self.status == _SWITCHING:  # nobody asked for another protocol
                raise BadStatusLine(f"HTTP/1.1 {self.status}")
            self.headers = self.msg = None  # type: ignore[assignment]  # that is how it knows that none was read
            super().begin()
        if not self.is_limited_whole:
            self._bytes.end_limit()


class WholeResponse(FinalResponse):
    """One whose body, too, has to arrive within the timeout, with the sizes of its chunks and its trailers."""

    is_limited_whole = True


class _Bytes(io.RawIOBase):
    """The bytes of a socket: up to `end_limit` or the end within its timeout as a whole, then each read within it."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._socket = sock
        self._timeout_s = sock.gettimeout()
        self._deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """See `RawIOBase`."""
        if self._deadline is not None:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left_s)
        return self._raw.readinto(buffer)

    def end_limit(self) -> None:
        """Give each further read the whole timeout."""
        if self._deadline is not None:
            self._deadline = None
            self._socket.settimeout(self._timeout_s)

    def close(self) -> None:
        """See `RawIOBase`."""
        with suppress(OSError):  # the connection is closed
            self.end_limit()  # the next request on it is to be sent
        self._raw.close()
        super().close()
