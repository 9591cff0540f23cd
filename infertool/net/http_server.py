"""A small HTTP server for metrics, health and statistics: GET, HEAD, a few POSTs, a bounded number of threads."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from infertool.errors import ListenError
from infertool.net.address import host_and_port
from infertool.net.timed_bytes import TimedBytes

_log = logging.getLogger(__name__)

# Connections at the same time. More are closed at once: a client that reads slowly must not use up memory.
MOST_CONNECTIONS: Final = 32
# A connection ends when its client takes nothing for this time, or needs longer for the line of a request or the rest
# of it: else a few clients that send a byte now and then would keep all others out. Seconds.
PATIENCE_S: Final = 10.0
# A POST has less than 100 000 bytes.
_MOST_DIGITS: Final = 5


@dataclass(frozen=True, slots=True)
class Request:
    """A request. Of a query parameter that is repeated the last value counts. `body` is that of a POST."""

    path: str
    query: Mapping[str, str]
    accept: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """A response. A `body` of pieces is sent as they come, until the client leaves or the server stops."""

    body: bytes | Iterator[bytes]
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Route = Callable[[Request], Response]


class HttpServer:
    """Answers from `routes`, a function for each path. It listens once it is made.

    `posts` changes something: it takes JSON, and only from this machine. A page in a browser cannot send that unasked.
    Raises `ListenError` where it cannot listen. Port 0 takes a free port.
    """

    def __init__(
        self, host: str, port: int, routes: Mapping[str, Route], *, name: str, posts: Mapping[str, Route] | None = None
    ) -> None:
        self.stopping = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server = _Server(host, port, family, _handler(routes, posts or {}))
        except (OSError, UnicodeError) as fault:
            reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
            address = host_and_port(host, port)
            raise ListenError(
                f"cannot listen on {address}: {reason}", address=address, advice="choose another address or port"
            ) from None
        self.port: int = self._server.server_address[1]
        self.address = host_and_port(host, self.port)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Answer requests, from threads of its own."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more, and free the port."""
        self.stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.2)


def is_local(address: str) -> bool:
    """Return True if the address of a peer is one of this machine's loopback addresses."""
    ip = ip_address(address)
    return ip.is_loopback or (isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None and ip.ipv4_mapped.is_loopback)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, port: int, family: socket.AddressFamily, handler: type[_Handler]) -> None:
        self.address_family = family
        self._room = threading.Semaphore(MOST_CONNECTIONS)
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind, without the reverse lookup of the host's name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close at once when there are too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer the requests of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone, or sends what is no HTTP."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "infertool"
    sys_version = ""
    timeout = PATIENCE_S
    routes: Mapping[str, Route]
    posts: Mapping[str, Route]

    def setup(self) -> None:
        """Limit the time of all bytes of a request together."""
        super().setup()
        self._bytes = TimedBytes(self.rfile.detach(), self.connection)
        self.rfile = io.BufferedReader(self._bytes)

    def handle_one_request(self) -> None:
        """Answer a request, once it comes."""
        self._bytes.begin_limit()
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the headers."""
        self._bytes.begin_limit()
        return super().parse_request()

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer a HEAD request."""
        self._answer(with_body=False)

    def do_POST(self) -> None:
        """Answer a POST request. What follows a refused one is its body, so the connection ends."""
        route = self.posts.get(_parts(self.path).path)
        length = self.headers.get("Content-Length", "")
        if route is None:
            refused = HTTPStatus.METHOD_NOT_ALLOWED if self._is_known() else HTTPStatus.NOT_FOUND
        elif not is_local(self.client_address[0]):
            refused = HTTPStatus.FORBIDDEN
        elif self.headers.get_content_type() != "application/json":
            refused = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        elif not length.isdecimal() or len(length) > _MOST_DIGITS:
            refused = HTTPStatus.LENGTH_REQUIRED
        else:
            body = self.rfile.read(int(length))
            self._send(_answer_of(route, Request(self.path, {}, body=body)), with_body=True)
            return
        self.close_connection = True
        headers = {"Connection": "close"}
        self._send(Response(f"{refused.phrase}\n".encode(), status=refused, headers=headers), with_body=True)

    def _is_known(self) -> bool:
        return (_parts(self.path).path.rstrip("/") or "/") in self.routes

    def _answer(self, *, with_body: bool) -> None:
        parts = _parts(self.path)
        route = self.routes.get(parts.path.rstrip("/") or "/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if route is None:
            paths = "\n".join(sorted(self.routes))
            response = Response(f"not found; there are:\n{paths}\n".encode(), status=HTTPStatus.NOT_FOUND)
        else:
            response = _answer_of(route, Request(parts.path, query, self.headers.get("Accept", "")))
        self._send(response, with_body=with_body)

    def _send(self, response: Response, *, with_body: bool) -> None:
        self._bytes.end_limit()
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Cache-Control", "no-store")
        for header, value in response.headers.items():
            self.send_header(header, value)
        if isinstance(response.body, bytes):
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            if with_body:
                self.wfile.write(response.body)
            return
        self.close_connection = True
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self._stream(response.body)

    def _stream(self, pieces: Iterator[bytes]) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
        """Log nothing."""


def _parts(target: str) -> SplitResult:
    """Return the parts of the target of a request, which may be any text: a path, or a URL."""
    try:
        return urlsplit(target)
    except ValueError:
        path, _, query = target.partition("?")
        return SplitResult("", "", path, query, "")


def _answer_of(route: Route, request: Request) -> Response:
    try:
        return route(request)
    except Exception:  # noqa: BLE001  (the server goes on, and the fault is told)
        _log.exception("answering %s failed", request.path)
        return Response(b"internal error\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)


def _handler(routes: Mapping[str, Route], posts: Mapping[str, Route]) -> type[_Handler]:
    return type("Handler", (_Handler,), {"routes": routes, "posts": posts})
