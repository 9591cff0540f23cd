"""The socket of a STOMP connection, its heartbeats, and stomp.py's commands on it.

stomp.py's transport is overridden at four public points: `attempt_connection`, because stomp.py hides why it could not
connect, sleeps and retries, and never sets TCP_NODELAY (a request and its reply take 44 ms instead of 1 ms);
`transmit`, because it logs the passcode at DEBUG; `send`, because only the writer thread waits for the socket; and the
io loop, because it parses one frame at a time with regular expressions, and any exception of a listener ends it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stomp.connect import BaseConnection
from stomp.protocol import Protocol12
from stomp.transport import Transport
from stomp.utils import calculate_heartbeats, convert_frame

from infertool.brokers.target import Target
from infertool.net.stream import Dialer, Stream

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

    @property
    def sends_every_s(self) -> float | None:
        """The interval of our heartbeats, as agreed; None for none."""
        return self.beat_s / _BEAT_SCALE if self.beat_s else None

    @property
    def receives_every_s(self) -> float | None:
        """The interval of the broker's heartbeats, as agreed; None for none."""
        return None if math.isinf(self.silence_s) else self.silence_s / _SILENCE_SCALE


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
            # RabbitMQ's default one is `/`; ActiveMQ and Artemis do not read it.
            vhost=target.vhost or "/",
        )
        self._target = target
        self._dialer = Dialer(target.host, target.port, target.tls, target.connect_timeout_s, ask=ask)
        self._write = write
        self._stream: Stream | None = None
        self.override_threading(lambda _io_loop: run(self.stream))

    @property
    def stream(self) -> Stream:
        """The connected socket."""
        if self._stream is None:
            raise ConnectionAbortedError("not connected")
        return self._stream

    def attempt_connection(self) -> None:
        """Connect TCP and TLS within the target's timeout."""
        self.socket = self._dialer.connect()
        self.current_host_and_port = (self._target.host, self._target.port)
        self._stream = Stream(self.socket)

    def abort(self) -> None:
        """End the connection, or the attempt to connect, from any thread."""
        self._dialer.abort()

    def transmit(self, frame: Any) -> None:
        """Write a frame of stomp.py's commands. Does not block."""
        self.send(b"".join(convert_frame(frame)))

    def send(self, encoded_frame: bytes) -> None:
        """Write bytes. Does not block."""
        self._write(encoded_frame)


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
