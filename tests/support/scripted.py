"""A STOMP server that does what a script says, one step a connection; for what no real broker does on demand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Self

LONG = 120.0
CONNECTED = b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0"
Script = Callable[["Line"], None]


class Line:
    """One accepted connection."""

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self._socket.settimeout(LONG)
        self._received = b""

    def expect(self, command: str) -> dict[str, str]:
        """Read frames up to one of `command`; return its headers."""
        while True:
            while b"\0" not in self._received:
                data = self._socket.recv(65536)
                assert data, f"closed before {command}"
                self._received += data
            frame, _, self._received = self._received.partition(b"\0")
            lines = frame.decode().lstrip("\n").split("\n")
            if lines[0] == command:
                return dict(line.split(":", 1) for line in lines[1:] if ":" in line)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def connected(self) -> None:
        self.expect("CONNECT")
        self.send(CONNECTED)

    def receipt(self, command: str) -> dict[str, str]:
        headers = self.expect(command)
        self.send(f"RECEIPT\nreceipt-id:{headers['receipt']}\n\n\0".encode())
        return headers


class Scripted:
    """Listens on 127.0.0.1; connection n runs `scripts[n]` and is closed at its end."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts: Sequence[Script] = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self.url = f"stomp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(LONG)
        self._listener.close()

    def _run(self) -> None:
        self._listener.settimeout(LONG)
        for script in self._scripts:
            with self._accept() as accepted:
                script(Line(accepted))

    def _accept(self) -> socket.socket:
        while True:
            accepted, _ = self._listener.accept()
            accepted.settimeout(LONG)
            # A consumer asks for the depth of its queue on a connection of its own.
            if b"-statistics-" not in accepted.recv(65536, socket.MSG_PEEK):
                return accepted
            accepted.close()
