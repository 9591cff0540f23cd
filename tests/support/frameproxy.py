"""A proxy between a STOMP client and a broker that sees whole frames: it changes them, or cuts the connection over one.

With it the real broker judges what a client makes of a frame that only JMS could send (a string property that has the
name of a header), and a client meets a broker that closes without a word.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets in place of the broker's word."""

    frame: bytes


Hook = Callable[[bytes], "bytes | Answer | None"]


def _as_it_is(frame: bytes) -> bytes:
    return frame


class FrameProxy:
    """Listens on 127.0.0.1. A hook gets a frame without its NUL and returns what goes on; None cuts.

    The server gets `farewell` before a cut.
    """

    scheme = "stomp"

    def __init__(
        self,
        server_port: int,
        *,
        to_client: Hook = _as_it_is,
        to_server: Hook = _as_it_is,
        farewell: bytes = b"",
    ) -> None:
        self._server_port = server_port
        self._farewell = farewell
        self._to_client, self._to_server = to_client, to_server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        self.cuts = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for each in self._sockets:
            cut(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                for ends in ((client, server, self._to_server), (server, client, self._to_client)):
                    threading.Thread(target=self._pump, args=(*ends, server), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, hook: Hook, server: socket.socket) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                *frames, rest = (rest + data).split(b"\0")
                for frame in frames:
                    sent = hook(frame)
                    if sent is None:
                        self.cuts += 1
                        raise ConnectionAbortedError
                    if isinstance(sent, Answer):
                        source.sendall(sent.frame + b"\0")
                    else:
                        sink.sendall(sent + b"\0")
                if not rest.strip(b"\n"):
                    sink.sendall(rest)
                    rest = b""
        with contextlib.suppress(OSError):
            server.sendall(self._farewell)
        cut(source)
        cut(sink)


def cut(each: socket.socket) -> None:
    """End a connection both ways."""
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


def header(frame: bytes, name: bytes) -> bytes:
    """Return the first value of a header, as it stands on the wire; empty when there is none."""
    head = frame.partition(b"\n\n")[0]
    found = re.search(rb"^" + re.escape(name) + rb":(.*)$", head, re.MULTILINE)
    return found[1] if found else b""


def hiding_the_brokers(frame: bytes) -> bytes:
    """Turn `jms.NAME:VALUE` into `NAME:VALUE`, in place of the broker's own, as ActiveMQ does with JMS properties."""
    head, gap, body = frame.partition(b"\n\n")
    lines = head.split(b"\n")
    properties = {line[4:].partition(b":")[0]: line[4:] for line in lines if line.startswith(b"jms.")}
    if not properties:
        return frame
    kept = [line for line in lines if not line.startswith(b"jms.") and line.partition(b":")[0] not in properties]
    return b"\n".join([*kept, *properties.values()]) + gap + body
