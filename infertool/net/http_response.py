"""Responses of `http.client` without the interim ones before them, whose head, or all, arrives within the timeout."""

from __future__ import annotations

import io
import socket
from http.client import BadStatusLine, HTTPResponse
from typing import Any, Final

from infertool.net.timed_bytes import TimedBytes

_INTERIM: Final = range(100, 200)
_SWITCHING: Final = 101


class FinalResponse(HTTPResponse):
    """The response class of our connections: `http.client` takes any interim response but 100 for the answer.

    The answer would then come later on a kept connection, and be taken for that of the next request.
    """

    is_limited_whole = False

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._bytes = TimedBytes(self.fp.detach(), sock)
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
