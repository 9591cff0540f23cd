"""The bytes of a socket, of which many together have to arrive within its timeout: a peer may send them one by one."""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from typing import Any


class TimedBytes(io.RawIOBase):
    """From its making or `begin_limit` on, up to `end_limit`, all within the timeout; then each read within it."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._socket = sock
        self._timeout_s = sock.gettimeout()
        self._deadline: float | None = None
        self.begin_limit()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """See `RawIOBase`. Raises `TimeoutError`."""
        if self._deadline is not None:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left_s)
        return self._raw.readinto(buffer)

    def begin_limit(self) -> None:
        """Give what follows the timeout as a whole."""
        self._deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s

    def end_limit(self) -> None:
        """Give each further read, and each write, the whole timeout."""
        if self._deadline is not None:
            self._deadline = None
            self._socket.settimeout(self._timeout_s)

    def close(self) -> None:
        """See `RawIOBase`."""
        with suppress(OSError):  # the connection is closed
            self.end_limit()  # the next request on it is to be sent
        self._raw.close()
        super().close()
