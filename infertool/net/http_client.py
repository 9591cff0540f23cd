"""An HTTP/1.1 client for one event loop: kept connections with one request each at a time, and no redirects."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from infertool.errors import UsageError
from infertool.ipv6 import bracketed_url
from infertool.net.address import host_and_port, in_url
from infertool.net.http_answer import Answer, AnswerError, AnswerReader
from infertool.net.http_faults import reason
from infertool.secret import mask_url

_PORTS: Final = {"http": 80, "https": 443}
# Labels of 1 to 63 characters: the resolver raises other errors than `OSError` for what is none.
_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_TARGET: Final = re.compile(r"[\x21-\x7e]*")
_HIGHEST_PORT: Final = 65_535
# Longest wait for an address of a name that has another one. Seconds.
_PATIENCE_S: Final = 2.0


class ExchangeError(Exception):
    """No whole response came. `connected` is False if there was no connection: the server got nothing."""

    def __init__(self, reason: str, *, connected: bool = True) -> None:
        super().__init__(reason)
        self.connected = connected


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `path` is the path with the query, `host` has no brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Return the parts of an http(s) URL without a user part. Raises `ValueError`."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or "@" in parts.netloc or not parts.hostname or not _TARGET.fullmatch(url):
            raise ValueError("it is no http:// or https:// address")
        host = parts.hostname
        if ":" in host:
            IPv6Address(host)
        elif not _NAME.fullmatch(host):
            raise ValueError("its host is no name")
        port = parts.port or _PORTS[parts.scheme]
        query = f"?{parts.query}" if parts.query else ""
        return cls(parts.scheme, host, port, f"{parts.path or '/'}{query}")

    @classmethod
    def typed(cls, option: str, url: str) -> Target:
        """Return the parts of the URL that `option` gives. Raises `UsageError`."""
        if meant := bracketed_url(url):
            raise UsageError(f"{option} names an IPv6 address, which needs brackets", advice=f"write {meant}")
        try:
            return cls.of(url)
        except ValueError as fault:
            raise UsageError(
                f"{option} {mask_url(url)} cannot be asked: {fault}", advice="write http://127.0.0.1:8080"
            ) from None

    @property
    def authority(self) -> str:
        """The Host header's value."""
        default = self.port == _PORTS[self.scheme]
        return in_url(self.host) if default else host_and_port(self.host, self.port)

    @property
    def origin(self) -> str:
        """The address without a path."""
        return f"{self.scheme}://{self.authority}"

    @property
    def shown(self) -> str:
        """The address with secrets masked."""
        return mask_url(f"{self.origin}{self.path}")


def request_head(method: str, target: Target, headers: Mapping[str, str], *, path: str | None = None) -> bytes:
    """Return a request up to its Content-Length and body, which `with_body` adds. Header values are checked before."""
    lines = [f"{method} {path or target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def with_body(head: bytes, body: bytes) -> bytes:
    """Return the whole request."""
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


Done = Callable[["Answer | ExchangeError"], None]


class HttpConnection(asyncio.Protocol):
    """One connection. `send` gives it a request while it is `free`. For `max_body` see `AnswerReader`."""

    def __init__(self, max_body: int | None, on_closed: Callable[[HttpConnection], None] | None = None) -> None:
        self._reader = AnswerReader(max_body)
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._done: Done | None = None
        self.used = 0

    @property
    def free(self) -> bool:
        """Return True if a request may be sent."""
        return self._done is None and self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, done: Done) -> None:
        """Send a request; `done` is called once, with its response or the reason why there is none."""
        assert self._transport is not None  # noqa: S101  (`free` was asked)
        self._done = done
        self.used += 1
        self._transport.write(request)

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and return its response. Raises `ExchangeError`; closes when it is cancelled."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(answer: Answer | ExchangeError) -> None:
            if answered.done():
                return
            if isinstance(answer, ExchangeError):
                answered.set_exception(answer)
            else:
                answered.set_result(answer)

        self.send(request, done)
        try:
            return await answered
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self, reason: str = "the request was given up") -> None:
        """End the connection at once. A request under way ends with `reason`."""
        self._finish(ExchangeError(reason))
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self._transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        """Read the response."""
        if self._done is None:
            # Nothing was asked, so nobody knows what it is.
            self.abort()
            return
        try:
            answer = self._reader.feed(data)
        except AnswerError as error:
            self.abort(f"the answer cannot be read: {error}")
            return
        if answer:
            if not answer.keeps and self._transport:
                self._transport.close()
            self._finish(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request under way."""
        if self._done:
            ended = self._reader.end() if exc is None else None
            why = f": {getattr(exc, 'strerror', None) or exc}" if exc else " before the answer was whole"
            self._finish(ended or ExchangeError(f"the connection was closed{why}"))
        self._transport = None
        if self._on_closed:
            self._on_closed(self)

    def _finish(self, answer: Answer | ExchangeError) -> None:
        done, self._done = self._done, None
        if done:
            done(answer)


async def connect(
    target: Target,
    *,
    max_body: int | None,
    tls: ssl.SSLContext | None = None,
    address: str | None = None,
    on_closed: Callable[[HttpConnection], None] | None = None,
) -> HttpConnection:
    """Connect to `target`, at `address` if its name was resolved before. Raises `ExchangeError`.

    The certificate must be that of the target's name in any case. The caller limits the time.
    """
    context = (tls or ssl.create_default_context()) if target.scheme == "https" else None
    if address is not None:
        ip_address(address)  # a name would be resolved again
    try:
        addresses = [address] if address is not None else await _resolved(target)
        for left in range(len(addresses), 0, -1):
            try:
                async with asyncio.timeout(_PATIENCE_S if left > 1 else None):
                    return await _connected(target, addresses[-left], context, max_body, on_closed)
            except OSError:  # a TimeoutError is one
                if left == 1:
                    raise
    except (OSError, ssl.SSLError) as fault:
        raise ExchangeError(f"{target.origin} cannot be reached: {reason(fault)}", connected=False) from fault
    raise ExchangeError(f"{target.origin} has no address", connected=False)


async def _resolved(target: Target) -> list[str]:
    with suppress(ValueError):
        return [str(ip_address(target.host))]
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def _connected(
    target: Target,
    address: str,
    context: ssl.SSLContext | None,
    max_body: int | None,
    on_closed: Callable[[HttpConnection], None] | None,
) -> HttpConnection:
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: HttpConnection(max_body, on_closed),
        address,
        target.port,
        ssl=context,
        server_hostname=target.host if context else None,
    )
    return connection
