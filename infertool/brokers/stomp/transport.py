"""The socket of a STOMP connection, its heartbeats, and stomp.py's commands on it.

stomp.py's transport is overridden at four public points: `attempt_connection`, because stomp.py hides why it could not
connect, sleeps and retries, and never sets TCP_NODELAY (a request and its reply take 44 ms instead of 1 ms);
`transmit`, because it logs the passcode at DEBUG; `send`, because only the writer thread waits for the socket; and the
io loop, because it parses one frame at a time with regular expressions, and any exception of a listener ends it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from stomp.connect import BaseConnection
from stomp.protocol import Protocol12
from stomp.transport import Transport
from stomp.utils import calculate_heartbeats, convert_frame

from infertool.brokers.stomp.target import PlainError, Target
from infertool.net.identify import answers_hello, plain_kind

READ_BYTES: Final = 65536
_QUICKACK: Final[int] = getattr(socket, "TCP_QUICKACK", 0)
# Longest wait for bytes that TLS has to read before it can write: the reader may already have taken them. Seconds.
_TLS_RETRY_S: Final = 0.05


class StalledError(OSError):
    """The peer accepted no byte for too long."""


class Stream:
    """A connected socket, non-blocking: both threads can time out, and neither is stuck in the kernel.

    Two threads must not use one SSL object at once (Python 3.11 does not lock it), so with TLS each recv and send holds
    a lock. Waits happen without it.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(0)
        self._socket = connected
        self._guard = threading.Lock() if isinstance(connected, ssl.SSLSocket) else contextlib.nullcontext()
        self._acks_late = _QUICKACK != 0 and connected.family in {socket.AF_INET, socket.AF_INET6}
        self._readable = select.poll()
        self._readable.register(connected, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connected, select.POLLOUT)

    def read(self, timeout_s: float) -> bytes | None:
        """Return the bytes that came, b"" at the stream's end, None if nothing came within `timeout_s`."""
        data = self._receive()
        if data is None and self._readable.poll(timeout_s * 1000):
            return self._receive()
        return data

    def _receive(self) -> bytes | None:
        try:
            with self._guard:
                data = self._socket.recv(READ_BYTES)
                self._acknowledge()
                return data
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _acknowledge(self) -> None:
        """Have the kernel send TCP acks at once. Linux resets the option after a while, so it is set after each read.

        ActiveMQ does not set TCP_NODELAY: its second small answer waits for the TCP ack of the first, which takes 40 ms
        while we write nothing. Measured: a quarter fewer moves a second.
        """
        if self._acks_late:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def write_some(self, data: bytes) -> bytes:
        """Write what can be written without waiting; return the rest. An error is left for `write` to raise."""
        with contextlib.suppress(OSError), self._guard:
            return data[self._socket.send(data) :]
        return data

    def write(self, data: bytes, patience_s: float) -> None:
        """Write all of `data`. Raises StalledError if the peer accepts nothing for `patience_s`, else OSError."""
        rest = memoryview(data)
        while rest:
            try:
                with self._guard:
                    rest = rest[self._socket.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                if not self._writable.poll(patience_s * 1000):
                    raise StalledError(f"the broker took nothing for {patience_s:g} s") from None
            except ssl.SSLWantReadError:
                self._readable.poll(_TLS_RETRY_S * 1000)

    def shut(self) -> None:
        """Wake both threads: their next read or write ends. The descriptor stays open until `close`."""
        shut(self._socket)

    def close(self) -> None:
        """Close the descriptor. No thread may use it any more."""
        self._socket.close()


def shut(any_socket: socket.socket) -> None:
    """Shut `any_socket` down, from any thread. On Linux this also ends a pending connect."""
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: it drops the TLS layer, and the reader would parse ciphertext as frames.
        socket.socket.shutdown(any_socket, socket.SHUT_RDWR)


BEAT = b"\n"
# ActiveMQ skips a heartbeat if it wrote anything since its last check: 2.0 intervals of silence are healthy.
_SILENCE_SCALE = 2.5
_BEAT_SCALE = 0.5


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The intervals that were agreed, in seconds.

    We write at least every `beat_s` (None: never); the broker writes within `silence_s`, or is taken for dead.
    """

    beat_s: float | None = None
    silence_s: float = math.inf


def wish(heartbeat_s: float) -> str:
    """Return the heart-beat header of CONNECT."""
    return f"{_milliseconds(heartbeat_s)},{_milliseconds(heartbeat_s)}"


def agree(heartbeat_s: float, answer: str) -> Heartbeat:
    """Return the intervals that follow from our CONNECT and from `answer`, the heart-beat header of CONNECTED.

    Source: STOMP 1.2, "Heart-beating". Raises ValueError for a malformed answer.
    """
    ours = _milliseconds(heartbeat_s)
    send, receive = calculate_heartbeats(answer.replace(" ", "").split(","), (ours, ours))
    return Heartbeat(
        beat_s=send / 1000 * _BEAT_SCALE if send else None,
        silence_s=receive / 1000 * _SILENCE_SCALE if receive else math.inf,
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


# stomp.py logs frames at DEBUG, also CONNECT with its passcode. --debug must not show them.
logging.getLogger("stomp.py").addFilter(_above_debug)


class StompTransport(Transport):  # type: ignore[misc]  # stomp.py has no types
    """Connects once to one host. `start()` raises the socket's OSError.

    With `ask`, a server that does not answer in TLS is probed, over other connections, for the protocol it speaks.
    """

    def __init__(
        self, target: Target, run: Callable[[Stream], object], write: Callable[[bytes], None], *, ask: bool
    ) -> None:
        super().__init__(
            [(target.host, target.port)],
            prefer_localhost=False,
            try_loopback_connect=False,
            auto_decode=False,
            # RabbitMQ's virtual host, of which `/` is the default one; ActiveMQ and Artemis do not read it.
            vhost="/",
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
        # An address that never answers must leave time for the next: `localhost` may be ::1 first.
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
        """End the connection, or the attempt to connect, from any thread."""
        self._aborted = True
        if self._stream is not None:
            self._stream.shut()
        elif self.socket is not None:
            shut(self.socket)

    def transmit(self, frame: Any) -> None:
        """Write a frame of stomp.py's commands. Does not block."""
        self.send(b"".join(convert_frame(frame)))

    def send(self, encoded_frame: bytes) -> None:
        """Write bytes. Does not block."""
        self._write(encoded_frame)


def _resolve(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None


class Commands(BaseConnection, Protocol12):  # type: ignore[misc]  # stomp.py has no types
    """stomp.py's STOMP 1.2 commands.

    Its heartbeats are off (`Heartbeat` replaces them). It adds no content-length, which would make each message a
    BytesMessage.
    """

    def __init__(self, transport: StompTransport) -> None:
        BaseConnection.__init__(self, transport)
        Protocol12.__init__(self, transport, heartbeats=(0, 0), auto_content_length=False)

    def send_disconnect(self, receipt: str) -> None:
        """Send DISCONNECT; BaseConnection's own `disconnect` hides the protocol's."""
        Protocol12.disconnect(self, receipt)
