"""A STOMP server that takes events, and treats some of them as a test says: for what no real broker does on demand."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from enum import Enum
from typing import Self

CONNECTED = b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0"
LONG_S = 120


class Treat(Enum):
    """What is done with a SEND."""

    CONFIRM = 1
    REFUSE = 2
    # It is taken, and no receipt comes.
    IGNORE = 3
    CLOSE = 4


class OddTarget:
    """Listens on 127.0.0.1. `treat` says by an event's body what to do; `took` are the bodies of those taken."""

    def __init__(self, treat: Callable[[bytes], Treat]) -> None:
        self._treat = treat
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.url = f"stomp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.took: list[bytes] = []

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(accepted)
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with accepted:
            received = b""
            while True:
                while b"\0" not in received:
                    try:
                        data = accepted.recv(65536)
                    except OSError:
                        return
                    if not data:
                        return
                    received += data
                frame, _, received = received.partition(b"\0")
                answer = self._answer(frame.lstrip(b"\n"))
                if answer is None:
                    return
                try:
                    accepted.sendall(answer)
                except OSError:
                    return

    def _answer(self, frame: bytes) -> bytes | None:
        """Return what to send; None closes the connection."""
        head, _, body = frame.partition(b"\n\n")
        if head.startswith((b"CONNECT", b"STOMP")):
            return CONNECTED
        receipt = re.search(rb"^receipt:(.*)$", head, re.MULTILINE)
        confirmed = b"RECEIPT\nreceipt-id:%s\n\n\0" % receipt[1] if receipt else b""
        if not head.startswith(b"SEND"):
            return confirmed
        treat = self._treat(body)
        if treat in {Treat.CONFIRM, Treat.IGNORE}:
            self.took.append(body)
        refused = b"ERROR\nreceipt-id:%s\nmessage:not this one\n\n\0" % (receipt[1] if receipt else b"")
        return {Treat.CONFIRM: confirmed, Treat.IGNORE: b"", Treat.REFUSE: refused, Treat.CLOSE: None}[treat]
