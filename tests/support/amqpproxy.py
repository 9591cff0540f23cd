"""Proxies between an AMQP client and a broker: one cuts and stalls, one sees whole frames and cuts over one."""

from __future__ import annotations

import contextlib
import socket
import struct

from tests.support.frameproxy import FrameProxy, Hook, cut
from tests.support.proxy import Proxy

_GREETING = 8


class AmqpProxy(Proxy):
    """The proxy that cuts and stalls, for AMQP."""

    @property
    def url(self) -> str:
        return f"amqp{'s' if self._tls else ''}://127.0.0.1:{self.port}"


def method(frame: bytes) -> int:
    """Return the number of the method in a frame, 0 for other frames."""
    return struct.unpack_from(">I", frame, 7)[0] if frame[0] == 1 else 0


class AmqpFrameProxy(FrameProxy):
    """The frame proxy for AMQP. A hook gets a whole frame: type, channel, size, payload and end."""

    scheme = "amqp"

    def _pump(self, source: socket.socket, sink: socket.socket, hook: Hook, server: socket.socket) -> None:
        with contextlib.suppress(OSError), source.makefile("rb") as stream:
            if sink is server:
                sink.sendall(stream.read(_GREETING))
            while head := stream.read(7):
                size = struct.unpack_from(">I", head, 3)[0]
                frame = hook(head + stream.read(size + 1))
                if not isinstance(frame, bytes):
                    break
                sink.sendall(frame)
        cut(source)
        cut(sink)
