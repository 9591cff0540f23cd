"""Proxies between an AMQP client and a broker: one cuts and stalls, one sees whole frames and cuts over one."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from tests.support.proxy import Proxy

# Type, channel and payload of a frame; what goes on, or None to cut.
Hook = Callable[[bytes], "bytes | None"]
_GREETING = 8


class AmqpProxy(Proxy):
    """The proxy that cuts and stalls, for AMQP."""

    @property
    def url(self) -> str:
        return f"amqp{'s' if self._tls else ''}://127.0.0.1:{self.port}"


def method(frame: bytes) -> int:
    """Return the number of the method in a frame, 0 for other frames."""
    return struct.unpack_from(">I", frame, 7)[0] if frame[0] == 1 else 0


class AmqpFrameProxy:
    """Listens on 127.0.0.1. A hook gets a frame and returns what goes on; None cuts."""

    def __init__(
        self, server_port: int, *, to_client: Hook = lambda frame: frame, to_server: Hook = lambda frame: frame
    ) -> None:
        self._server_port = server_port
        self._to_client, self._to_server = to_client, to_server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.url = f"amqp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for each in self._sockets:
            _cut(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                threading.Thread(
                    target=self._pump, args=(client, server, self._to_server, _GREETING), daemon=True
                ).start()
                threading.Thread(target=self._pump, args=(server, client, self._to_client, 0), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, hook: Hook, greeting: int) -> None:
        with contextlib.suppress(OSError), source.makefile("rb") as stream:
            if greeting:
                sink.sendall(stream.read(greeting))
            while head := stream.read(7):
                size = struct.unpack_from(">I", head, 3)[0]
                frame = hook(head + stream.read(size + 1))
                if frame is None:
                    break
                sink.sendall(frame)
        _cut(source)
        _cut(sink)


def _cut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
