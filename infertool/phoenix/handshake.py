"""What websocket-client takes for a socket while it upgrades: a server of another kind is told by its first words."""

from __future__ import annotations

from collections.abc import Callable

from infertool.net.identify import HELLO_S, Kind, kind_of
from infertool.phoenix.stream import Stream

_HTTP = b"HTTP/"


class OtherServerError(Exception):
    """The server's first words, or its silence, show that it speaks `kind`; unknown, if no HTTP."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind


class Handshake:
    """The stream, up to the answer to the upgrade. websocket-client waits for a line, which others may never end.

    So the first words are judged at once. After a short silence `ask`, if it is given, says what the server is.
    """

    def __init__(self, stream: Stream, ask: Callable[[], Kind] | None) -> None:
        self.stream = stream
        self._ask = ask
        self._judged = False
        self.send, self.close = stream.send, stream.close
        self.settimeout, self.gettimeout = stream.settimeout, stream.gettimeout

    def recv(self, size: int) -> bytes:
        """See `Stream`. Raises `OtherServerError`."""
        if not self._judged:
            self._judge()
            self._judged = True
        return self.stream.recv(size)

    def _judge(self) -> None:
        while not self.stream.fills_within(HELLO_S):
            if self._ask and (kind := self._ask()) not in {Kind.UNKNOWN, Kind.HTTP}:
                raise OtherServerError(kind)
            self._ask = None  # it may be a slow Phoenix
        start = self.stream.newest[: len(_HTTP)]
        if not _HTTP.startswith(start):
            raise OtherServerError(kind_of(self.stream.newest))
