"""stomp.py's transport with our own socket, reader and writer behind its public override points.

Overridden, and why: `attempt_connection`, because stomp.py swallows the reason why it could not connect, sleeps and
retries inside, and never sets TCP_NODELAY (a request and its reply take 44 ms instead of 1 ms); `transmit`, because it
logs the passcode at DEBUG; `send`, because only the writer thread may write; stomp.py's io loop, because it parses
one frame at a time with regular expressions, and its thread dies of whatever a listener raises.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stomp.connect import BaseConnection
from stomp.protocol import Protocol12
from stomp.transport import Transport
from stomp.utils import convert_frame

from infertool.brokers.stomp.diagnosis import PlainError
from infertool.brokers.stomp.stream import Stream, shut
from infertool.identify import answers_hello, plain_kind

if TYPE_CHECKING:
    from infertool.brokers.stomp.target import Target


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


# stomp.py logs frames, CONNECT and its passcode among them, at DEBUG: a user's --debug must not let that out.
logging.getLogger("stomp.py").addFilter(_above_debug)


class StompTransport(Transport):  # type: ignore[misc]  # stomp.py has no types
    """Connects once to one host. `start()` raises OSError with the true reason.

    With `ask`, a server that does not answer in TLS is asked, on other connections, what it speaks.
    """

    def __init__(
        self, target: Target, run: Callable[[Stream], object], write: Callable[[bytes], None], *, ask: bool
    ) -> None:
        super().__init__(
            [(target.host, target.port)], prefer_localhost=False, try_loopback_connect=False, auto_decode=False
        )
        self._target = target
        self._deadline = time.monotonic() + target.connect_timeout_s
        self._write = write
        self._ask = ask
        self._stream: Stream | None = None
        self._aborted = False
        self.override_threading(lambda _io_loop: run(self.stream))

    @property
    def stream(self) -> Stream:
        """The connected socket."""
        if self._stream is None:
            raise ConnectionAbortedError("not connected")
        return self._stream

    def attempt_connection(self) -> None:
        """Connect TCP and TLS within the target's timeout."""
        host, port = self._target.host, self._target.port
        fault: OSError | None = None
        addresses = _resolve(host, port)
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            self.socket = socket.socket(family, kind, protocol)
            try:
                self._connect(address, len(addresses) - number)
            except OSError as refusal:
                self.socket.close()
                fault = refusal
            else:
                self.current_host_and_port = (host, port)
                self._stream = Stream(self.socket)
                return
        raise fault or OSError(f"{host} has no address")

    def _connect(self, address: Any, addresses_left: int) -> None:
        # One that swallows everything must leave time for the next: `localhost` may be ::1 first.
        self._limit_wait(addresses_left)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._target.tls is None:
            return
        self.socket = self._target.tls.context.wrap_socket(
            self.socket, server_hostname=self._target.host, do_handshake_on_connect=False
        )
        if self._ask and not answers_hello(self.socket) and (kind := plain_kind(self._target.host, self._target.port)):
            raise PlainError(kind)
        self._limit_wait()
        self.socket.do_handshake()

    def _limit_wait(self, shares: int = 1) -> None:
        left = self._deadline - time.monotonic()
        if self._aborted or left <= 0:
            raise TimeoutError("timed out")
        self.socket.settimeout(left / shares)

    def abort(self) -> None:
        """End the connection, or the attempt to make one, from any thread."""
        self._aborted = True
        if self._stream is not None:
            self._stream.shut()
        elif self.socket is not None:
            shut(self.socket)

    def transmit(self, frame: Any) -> None:
        """Hand a frame of stomp.py's commands to the writer."""
        self.send(b"".join(convert_frame(frame)))

    def send(self, encoded_frame: bytes) -> None:
        """Hand bytes to the writer."""
        self._write(encoded_frame)


def _resolve(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None


class Commands(BaseConnection, Protocol12):  # type: ignore[misc]  # stomp.py has no types
    """stomp.py's STOMP 1.2 commands.

    Its heartbeats stay off, see heartbeat.py; it adds no content-length, which would make every message a BytesMessage.
    """

    def __init__(self, transport: StompTransport) -> None:
        BaseConnection.__init__(self, transport)
        Protocol12.__init__(self, transport, heartbeats=(0, 0), auto_content_length=False)

    def say_goodbye(self, receipt: str) -> None:
        """Send DISCONNECT; BaseConnection's own `disconnect` hides the protocol's."""
        Protocol12.disconnect(self, receipt)
