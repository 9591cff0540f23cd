"""The protocol of a connection: uvicorn's, with limits of time and size. What proxies may read differently is refused.

uvicorn has no time-out of headers and no limit of their size, and closes a connection whose body was not read: the
client may then never see the response.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from itertools import chain
from typing import TYPE_CHECKING, Final

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from infertool.gateway import problem
from infertool.gateway.clients import certificate_name
from infertool.gateway.context import CONNECTION, Connection
from infertool.gateway.exchange import EXCHANGE
from infertool.gateway.joined_writes import JoinedWrites
from infertool.gateway.problem import Problem, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

# Names, values and the target of a request.
MOST_HEADER_BYTES: Final = 65_536
MOST_HEADERS: Final = 200
# Longer than proxies keep idle connections (nginx: 60 s), so that it is them who close. Seconds.
KEEP_ALIVE_S: Final = 75.0
# A body that nobody reads is thrown away for this time, then the connection is closed. Seconds.
DISCARD_S: Final = 5.0
SWEEP_S: Final = 1.0
_UPGRADING: Final = {b"connection", b"upgrade", b"http2-settings"}


class Guard:
    """The limits of all connections of a server, and the connections."""

    def __init__(self, *, receive_timeout_s: float, max_connections: int) -> None:
        self.receive_timeout_s = receive_timeout_s
        self.max_connections = max_connections
        self.open: set[GatewayProtocol] = set()
        # Connections that were refused or ended, by reason.
        self.refused: dict[str, int] = {}

    def note(self, reason: Reason) -> None:
        """Count a connection that was refused or ended."""
        name = reason.name.lower()
        self.refused[name] = self.refused.get(name, 0) + 1

    async def sweep(self) -> None:
        """End connections whose headers do not arrive, and idle ones, for as long as this runs."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            late, idle = loop.time() - self.receive_timeout_s, loop.time() - KEEP_ALIVE_S
            for connection in [each for each in self.open if each.headers_since < late]:
                connection.end_late()
            for connection in [each for each in self.open if each.idle_since < idle]:
                connection.transport.close()


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    guard: Guard

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse one connection too many."""
        self._writes = JoinedWrites(transport, self.loop)
        super().connection_made(self._writes)  # type: ignore[arg-type]
        # When the headers that are being received began; infinite while none are.
        self.headers_since = self.loop.time()
        # When the newest response was complete; infinite from the next request on.
        self.idle_since = math.inf
        self._header_bytes = 0
        self._headers_come = True
        # The newest chunk may be the last: trailers follow, unless a part of the body does.
        self._trailers_come = False
        self._has_begun = False
        self._ended = False
        self._discarding: asyncio.TimerHandle | None = None
        self.connection = Connection(_name_of(transport))
        guard = self.guard
        guard.open.add(self)
        if len(guard.open) > guard.max_connections:
            self._refuse(Problem(Reason.TOO_MANY_CONNECTIONS, retry_after_s=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell whoever waits for this client."""
        self.guard.open.discard(self)
        self._stop_discarding()
        super().connection_lost(exc)
        self.connection.is_lost = True
        on_lost, self.connection.on_lost = self.connection.on_lost, None
        if on_lost:
            on_lost()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        while data and not self._ended:
            data = self._parse(data)

    def _parse(self, data: bytes) -> bytes:
        """Parse what came. Return what is to be parsed anew."""
        rest = b""
        if self._headers_come or self._trailers_come:
            self._header_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(Problem(Reason.INVALID_HTTP))
        is_large = self._header_bytes > MOST_HEADER_BYTES
        if is_large and (self._headers_come or self._trailers_come) and not self._ended:
            self._refuse(_too_large())
        return rest

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Return a request that asks for another protocol, as Java's client does by default (h2c), as one of HTTP/1.1.

        The parser ends at its headers: a new one is to get them without that wish, and the body.
        """
        if self._ended:
            return b""
        if self.parser.get_method() == b"CONNECT":
            self._refuse(Problem(Reason.INVALID_HTTP, "this is no proxy"))
            return b""
        head = [b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] not in _UPGRADING]
        if any(b"close" in value.lower() for name, value in self.headers if name == b"connection"):
            head.append(b"connection: close\r\n")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([*head, b"\r\n", rest])

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._headers_come = self._has_begun = True
        self._header_bytes = 0
        self.idle_since = math.inf
        if self.headers_since == math.inf:
            self.headers_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. A trailer is dropped: the request runs already, by its headers."""
        if self._headers_come:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the headers, and run the request."""
        self._headers_come = False
        # Also the idle time, which an earlier response may have begun meanwhile.
        self.headers_since = self.idle_since = math.inf
        if self._ended:
            return
        if refusal := _fault(self.headers, self.url, self.parser.get_http_version()):
            self._refuse(refusal)
            return
        if self.parser.should_upgrade():
            return
        self.scope[CONNECTION] = self.connection  # type: ignore[typeddict-unknown-key]
        try:
            super().on_headers_complete()
            self.scope[EXCHANGE] = self.cycle  # type: ignore[typeddict-unknown-key]
        except (httptools.HttpParserError, ValueError):
            # The target is no URL.
            self._refuse(Problem(Reason.INVALID_HTTP, "the target of the request is no path"))

    def on_chunk_header(self) -> None:
        """Begin a chunk."""
        self._trailers_come = True
        self._header_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body."""
        self._trailers_come = False
        if not self._ended:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body."""
        self._trailers_come = False
        if self._ended or self.parser.should_upgrade():
            return
        if self._discarding:
            self._stop_discarding()
            self.cycle.more_body = False
            return
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, once the body of this one is thrown away."""
        self._writes.flush()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            # The body of the answered one has come: the newest cycle is that of a later request.
            self._start_asgi_task(*self.pipeline.pop())
            return
        if self.cycle is not None and self.cycle.more_body:
            self._discarding = self.loop.call_later(DISCARD_S, self.transport.close)
        # Not uvicorn's timer, which costs more than the rest.
        self.idle_since = self.loop.time()

    def shutdown(self) -> None:
        """Close once the response is sent."""
        if self._discarding:
            self.transport.close()
        super().shutdown()

    def end_late(self) -> None:
        """End a connection whose headers have not arrived in time."""
        self.headers_since = math.inf
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self._has_begun:
            self._refuse(Problem(Reason.HEADER_TIMEOUT))
        else:
            self.guard.note(Reason.HEADER_TIMEOUT)
            self.transport.close()

    def _refuse(self, refusal: Problem) -> None:
        """Answer with a problem, outside of the application, and close."""
        self._ended = True
        self.headers_since = math.inf
        self.guard.note(refusal.reason)
        if self.transport.is_closing():
            return
        # A response to the request whose body is thrown away was sent.
        if self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body):
            self.transport.write(_response(refusal, self.server_state.default_headers))
        self.transport.close()

    def _stop_discarding(self) -> None:
        if self._discarding:
            self._discarding.cancel()
            self._discarding = None


def _fault(headers: list[tuple[bytes, bytes]], target: bytes, version: str) -> Problem | None:
    """Return why a request is refused whose headers servers and proxies may read differently."""
    if len(headers) > MOST_HEADERS or len(target) + sum(map(len, chain.from_iterable(headers))) > MOST_HEADER_BYTES:
        return _too_large()
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    fault = ""
    if hosts > 1 or (not hosts and version == "1.1"):
        fault = "there must be one header Host"
    elif b"transfer-encoding" in names:
        fault = _coding_fault(headers, names, version)
    elif names.count(b"content-length") > 1:
        fault = "there is more than one Content-Length"
    elif not target.startswith((b"/", b"http://", b"https://")) and target != b"*":
        fault = "the target of the request is no path"
    return Problem(Reason.INVALID_HTTP, fault) if fault else None


def _coding_fault(headers: list[tuple[bytes, bytes]], names: list[bytes], version: str) -> str:
    # A length would end the request elsewhere than the coding.
    if b"content-length" in names:
        return "Content-Length and Transfer-Encoding exclude each other"
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    return "" if codings == [b"chunked"] and version == "1.1" else "the only transfer encoding is chunked"


def _too_large() -> Problem:
    return Problem(Reason.HEADERS_TOO_LARGE, f"the limits are {MOST_HEADER_BYTES} bytes and {MOST_HEADERS} headers")


def _response(refusal: Problem, defaults: Iterable[tuple[bytes, bytes]]) -> bytes:
    body = orjson.dumps(refusal.document())
    lines = [STATUS_LINE[refusal.reason.status.value]]
    lines += [b"%b: %b\r\n" % header for header in defaults]
    if refusal.retry_after_s is not None:
        lines.append(b"retry-after: %d\r\n" % refusal.retry_after_s)
    lines.append(b"content-type: %b\r\ncontent-length: %d\r\n" % (problem.CONTENT_TYPE.encode(), len(body)))
    return b"".join([*lines, b"connection: close\r\n\r\n", body])


def _name_of(transport: asyncio.Transport) -> str | None:
    """Return the name in the client's certificate, which TLS has checked; None without one."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    return certificate_name(tls.getpeercert() if tls else None) or None
