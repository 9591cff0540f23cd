"""Proxies between a Kafka client and one broker: one cuts and stalls, one sees whole requests and cuts over one.

Clients stay with them: where the broker tells its own address, they read the proxy's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from tests.support.frameproxy import FrameProxy, Hook, cut
from tests.support.proxy import Proxy


class KafkaProxy(Proxy):
    """The proxy that cuts and stalls, for Kafka."""

    @property
    def url(self) -> str:
        return f"kafka://{self.address}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reading(self, server: asyncio.StreamReader) -> Any:
        return _Answers(server, place(self._server_port), place(self.port))


class _Answers:
    """Reads a broker's answers whole."""

    def __init__(self, server: asyncio.StreamReader, told: bytes, wanted: bytes) -> None:
        self._server = server
        self._told, self._wanted = told, wanted

    async def read(self, _: int) -> bytes:
        try:
            size = await self._server.readexactly(4)
            answer = await self._server.readexactly(int.from_bytes(size))
        except asyncio.IncompleteReadError:
            return b""
        return size + answer.replace(self._told, self._wanted)


class KafkaFrameProxy(FrameProxy):
    """The frame proxy for Kafka. A hook gets a request or an answer without its size."""

    scheme = "kafka"

    def _pump(self, source: socket.socket, sink: socket.socket, hook: Hook, server: socket.socket) -> None:
        with contextlib.suppress(OSError), source.makefile("rb") as stream:
            while size := stream.read(4):
                frame = hook(stream.read(int.from_bytes(size)))
                if not isinstance(frame, bytes):
                    self.cuts += 1
                    break
                if source is server:
                    frame = frame.replace(place(self._server_port), place(self.port))
                sink.sendall(size + frame)
        cut(source)
        cut(sink)


def place(port: int) -> bytes:
    """Return how a broker on 127.0.0.1 tells its address."""
    return b"127.0.0.1" + port.to_bytes(4)
