"""One TCP connection of the channel server: HTTP first, then a WebSocket.

It is an `asyncio.Protocol` around the I/O-free core of the `websockets` library, chosen by measurement. CPU time of a
push of 400 bytes with a reply and one subscriber, each with the same minimal logic: this 12 to 20 us, that library's
asyncio server 45 to 60 us, uvicorn with its websockets-sansio implementation 42 to 66 us; uvloop saves a tenth at
most. The others need a queue, a task switch and two writes a message. Here all messages of a read are handled at once,
and each socket gets one write. The complete channel server takes 24 to 32 us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from http import HTTPStatus
from typing import Protocol

import orjson
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF, State

from infertool.embedded.channel_server import wire
from infertool.embedded.channel_server.channels import Hub
from infertool.embedded.channel_server.session import Session
from infertool.embedded.channel_server.wire import SECURITY_HEADERS, SOCKET_PATH, Page, SocketRefused, Wire, admit, page
from infertool.phoenix.frames import FrameError
from infertool.text.json_text import JsonError

_log = logging.getLogger(__name__)
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_WRITE_BYTES = 65_536
_LINGER_S = 2.0
"""Time that a client has to read its close frame before the connection is aborted."""


class Listener(Protocol):
    """The server that accepted the connection."""

    @property
    def hub(self) -> Hub:
        """The topics."""

    @property
    def host(self) -> str:
        """The address that it listens on."""

    @property
    def connections(self) -> set[Connection]:
        """The open connections."""

    def left(self, connection: Connection) -> None:
        """Remove a connection that ended."""

    def describe(self) -> dict[str, object]:
        """Return the body of `/health`."""


class Connection(asyncio.Protocol):
    """A client. Everything runs on the server's event loop."""

    def __init__(self, server: Listener) -> None:
        self._server = server
        self._limits = server.hub.limits
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(self._limits.max_frame_bytes)
        self._session: Session | None = None
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._blocked = False
        self._progress: tuple[int, float] = (0, 0.0)
        self._closing = False
        self._fragments: list[Frame] = []
        self._heard_at = self._loop.time()
        self._transport: asyncio.Transport
        self._idle_timer: asyncio.TimerHandle
        self._request_timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, and start its timers."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("the channel server listens on stream sockets")
        self._transport = transport
        self._server.connections.add(self)
        self._idle_timer = self._loop.call_later(self._limits.idle_s, self._check_idle)
        self._request_timer = self._loop.call_later(self._limits.request_s, self._give_up_request)

    def connection_lost(self, _error: Exception | None) -> None:
        """Remove the connection, and its channels from their topics."""
        self._idle_timer.cancel()
        self._request_timer.cancel()
        self._server.left(self)
        if self._session:
            self._session.leave_all()

    def data_received(self, data: bytes) -> None:
        """Handle every received frame."""
        self._heard_at = self._loop.time()
        self._wire.receive_data(data)
        if self._wire.state is State.OPEN:
            self._send_control()
        for event in self._wire.events_received():
            if isinstance(event, Frame):
                self._on_frame(event)
            elif isinstance(event, Request):
                self._on_request(event)
        if self._session:
            self._session.end_batch()
        self._send_control()

    def eof_received(self) -> None:
        """Let the transport close: the client sends nothing more."""
        self._wire.receive_eof()

    def pause_writing(self) -> None:
        """Keep output until the client reads again; read nothing from it meanwhile, as Phoenix does."""
        self._blocked = True
        self._progress = (0, self._loop.time())
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Send the kept output."""
        self._blocked = False
        self._flush()
        if not self._blocked and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def waiting(self) -> int:
        """The number of messages that are kept because the client reads too slowly."""
        return len(self._unsent) if self._blocked else 0

    @property
    def waiting_bytes(self) -> int:
        """The bytes that the client has not read."""
        return self._unsent_bytes + self._transport.get_write_buffer_size()

    def is_stuck(self, now: float) -> bool:
        """Return True if the client has read nothing for `Limits.send_timeout_s`."""
        if not self._blocked:
            return False
        size, since = self._transport.get_write_buffer_size(), self._progress[1]
        if size != self._progress[0]:
            self._progress = (size, now)
            return False
        return now - since > self._limits.send_timeout_s

    def drop(self, reason: str) -> None:
        """Abort the connection without a close frame, which the client would not read either."""
        _log.warning("client disconnected: %s", reason)
        self._unsent.clear()
        self._closing = True
        self._transport.abort()

    def send(self, packet: bytes) -> None:
        """Send a finished WebSocket frame, in one write with the others of this loop iteration."""
        if self._closing:
            return
        if not self._unsent and not self._blocked:
            self._loop.call_soon(self._flush)
        self._unsent.append(packet)
        self._unsent_bytes += len(packet)
        if self._blocked:
            self._check_size()

    def go_away(self) -> None:
        """Close for a server stop: 1012 if channels are joined, else 1000 (v2_server_shutdown_sigterm.jsonl)."""
        if self._wire.state is State.OPEN:
            joined = self._session is not None and self._session.joined > 0
            self._close(1012 if joined else 1000)
        else:
            self._transport.close()

    def _flush(self) -> None:
        while self._unsent and not self._blocked and not self._closing:
            count = len(self._unsent) if self._unsent_bytes <= _WRITE_BYTES else self._first()
            data = b"".join(self._unsent[:count])
            del self._unsent[:count]
            self._unsent_bytes -= len(data)
            self._transport.write(data)
        if self._blocked:
            self._check_size()

    def _first(self) -> int:
        """Return the number of messages for one write: the others stay countable by `waiting`."""
        size = 0
        for count, packet in enumerate(self._unsent, 1):
            size += len(packet)
            if size > _WRITE_BYTES:
                return count
        return len(self._unsent)

    def _check_size(self) -> None:
        if self.waiting_bytes > self._limits.max_unsent_bytes:
            self.drop(f"{self.waiting_bytes} bytes wait for it")

    def _send_control(self) -> None:
        for data in self._wire.data_to_send():
            self._flush()
            if data == SEND_EOF:
                self._closing = True
                with contextlib.suppress(OSError):  # the client has reset its connection
                    self._transport.write_eof()
                # Closing at once could reset the connection before the client has read the close frame.
                self._loop.call_later(_LINGER_S, self._transport.abort)
            else:
                self._transport.write(data)

    def _close(self, code: int) -> None:
        self._wire.fail(code)
        self._send_control()

    def _give_up_request(self) -> None:
        """Answer 408 if the HTTP request is still incomplete: a slow sender must not hold the connection."""
        if self._wire.state is State.CONNECTING:
            self._transport.write(_TIMED_OUT)
            self._transport.close()

    def _check_idle(self) -> None:
        wait_s = self._heard_at + self._limits.idle_s - self._loop.time()
        if wait_s > 0:
            self._idle_timer = self._loop.call_later(wait_s, self._check_idle)
        elif self._wire.state is State.OPEN:
            self._close(1002)
        else:
            self._transport.abort()

    def _on_frame(self, frame: Frame) -> None:
        if self._session is None or self._closing:
            return
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:
            if frame.fin and not self._fragments:
                self._on_message(self._session, frame)
            else:
                self._on_fragment(self._session, frame)

    def _on_fragment(self, session: Session, frame: Frame) -> None:
        self._fragments.append(frame)
        if frame.fin:
            whole = Frame(self._fragments[0].opcode, b"".join(part.data for part in self._fragments))
            self._fragments.clear()
            self._on_message(session, whole)

    def _on_message(self, session: Session, frame: Frame) -> None:
        data = bytes(frame.data)
        decode = wire.decode if frame.opcode is Opcode.TEXT else wire.decode_binary
        try:
            session.receive(decode(data, session.vsn))
        except (FrameError, JsonError):
            self._close(1011 if frame.opcode is Opcode.BINARY or _is_utf8(data) else 1007)

    def _on_request(self, request: Request) -> None:
        self._request_timer.cancel()
        path = request.path.partition("?")[0]
        answer = self._open_socket if path == SOCKET_PATH else self._answer_page
        self._wire.send_response(answer(request))

    def _open_socket(self, request: Request) -> Response:
        host = self._server.host
        try:
            admission = admit(request.path, request.headers, token=self._server.hub.token, bind_host=host)
        except SocketRefused as refused:
            return _response(refused.status)
        response = self._wire.accept(request)
        if response.status_code != 101:  # noqa: PLR2004 - HTTP's number
            return _response(400, Page(b"a WebSocket upgrade is needed here\n", "text/plain; charset=utf-8"))
        self._session = Session(self._server.hub, admission.vsn, self.send, authorized=admission.authorized)
        return response

    def _answer_page(self, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if request.method != "GET":
            return _response(405)
        if path == "/health":
            return _response(200, Page(orjson.dumps(self._server.describe()), "application/json"))
        found = page(path)
        if found is None:
            return _response(404, Page(b"not found", "text/plain; charset=utf-8"))
        return _response(200, found)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _response(status: int, found: Page | None = None) -> Response:
    """Return an HTTP response that closes the connection."""
    headers = Headers(SECURITY_HEADERS)
    headers["Connection"] = "close"
    headers["Content-Length"] = str(len(found.body) if found else 0)
    if found:
        headers["Content-Type"] = found.content_type
    return Response(status, HTTPStatus(status).phrase, headers, found.body if found else b"")
