"""A model server that answers, or fails to, on cue: a few lines over sockets, so that it can break every rule."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import BaseRequestHandler
from typing import Any, Self, cast


@dataclass(frozen=True)
class Request:
    """What a client asked. Names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to write, in one piece or in several, and whether to close the connection behind it, without a word."""

    data: bytes | Iterable[bytes]
    close: bool = False


Handler = Callable[[Request], Reply]


def reply(body: bytes, status: str = "200 OK", *, close: bool = False, **headers: str) -> Reply:
    """Return a well-formed answer; header names take `_` for `-`."""
    named = {"content-type": "application/json", "content-length": str(len(body))}
    named |= {key.replace("_", "-"): value for key, value in headers.items()}
    lines = "".join(f"{key}: {value}\r\n" for key, value in named.items())
    return Reply(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body, close)


def answer(value: Any) -> Reply:
    """Return `value` as JSON."""
    return reply(json.dumps(value).encode())


@dataclass
class ModelServer:
    """Threads that answer what `handler` says. It can be stopped and started again on its port."""

    handler: Handler = field(default_factory=lambda: lambda _request: answer({"class": "A"}))
    port: int = 0
    certificate: Path | None = None
    client_authority: Path | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://127.0.0.1:{self.port}/predict"

    def start(self) -> Self:
        self._open: set[Any] = set()
        # A handler is whatever is called with a connection, an address and the server.
        self._server = _Server(("127.0.0.1", self.port), cast("type[BaseRequestHandler]", self._serve))
        self.port = self._server.server_address[1]
        if self.certificate:
            self._server.socket = self._tls().wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the port and all connections."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._open):
            _close(connection)

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self.certificate is not None
        context.load_cert_chain(self.certificate)
        if self.client_authority:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.client_authority)
        return context

    def _serve(self, connection: Any, _address: object, _server: object) -> None:
        self.connections += 1
        self._open.add(connection)
        stream = connection.makefile("rb")
        try:
            while (request := _read(stream)) is not None:
                self.requests.append(request)
                given = self.handler(request)
                for part in [given.data] if isinstance(given.data, bytes) else given.data:
                    connection.sendall(part)
                if given.close:
                    break
        except OSError:
            pass  # the client left, or the server stops
        stream.close()
        _close(connection)
        self._open.discard(connection)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a TLS handshake that fails is what a test wanted."""


def _read(stream: Any) -> Request | None:
    start = stream.readline()
    if not start:
        return None
    method, path, _ = start.decode().split(" ")
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, path, headers, stream.read(int(headers.get("content-length", 0))))


def _close(connection: Any) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
