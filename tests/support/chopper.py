"""A TCP proxy that cuts what the server says into small pieces, so that frames arrive in two, or in many."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
from typing import Self


class Chopper:
    """Forwards each connection; pieces to the client have 1 to `most` bytes, and each goes out alone."""

    def __init__(self, server_port: int, *, most: int, seed: int = 1) -> None:
        self._server_port = server_port
        self._most = most
        self._rng = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.pieces = itertools.count()
        self.stomp_port = self._listener.getsockname()[1]
        self.url = f"stomp://127.0.0.1:{self.stomp_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for work in ((self._whole, client, server), (self._chopped, server, client)):
                    threading.Thread(target=work[0], args=work[1:], daemon=True).start()

    def _whole(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), sink:
            while data := source.recv(65536):
                sink.sendall(data)

    def _chopped(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), sink:
            while data := source.recv(65536):
                while data:
                    size = self._rng.randint(1, self._most)
                    sink.sendall(data[:size])
                    next(self.pieces)
                    data = data[size:]
