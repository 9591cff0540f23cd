"""One AMQP connection: it connects once, ends once with a reason, and is never used again."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pika import spec

from infertool.brokers import target as diagnosis
from infertool.brokers.amqp import frames, refusals
from infertool.brokers.amqp.frames import FrameError
from infertool.brokers.target import Target
from infertool.errors import ConnectionLostError, ServerError
from infertool.net.identify import HELLO_S, Kind
from infertool.net.reader import StreamReader
from infertool.net.stream import Dialer, Stream
from infertool.net.write_buffer import WriteBuffer

if TYPE_CHECKING:
    from infertool.brokers.amqp.channel import Channel

_log = logging.getLogger(__name__)

_PORTS: Final = "AMQP's port is mostly 5672"
SPOKEN: Final = diagnosis.Protocol(
    Kind.AMQP,
    ("amqp", "amqps"),
    "the AMQP greeting",
    {
        Kind.HTTP: ("an HTTP server (RabbitMQ's management listens at 15672)", _PORTS),
        Kind.OPENWIRE: ("an OpenWire port, which is for JMS clients", "use stomp:// for ActiveMQ"),
        Kind.STOMP: ("a STOMP port", f"use stomp:// in broker.url, or the broker's AMQP port; {_PORTS}"),
        Kind.MQTT: ("an MQTT port", f"use the broker's AMQP port; {_PORTS}"),
        Kind.AMQP: ("an AMQP port of another version", "AMQP 0-9-1 is needed; use stomp:// for ActiveMQ and Artemis"),
    },
    article="an",
)
_CAPABILITIES: Final = {
    "publisher_confirms": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}
# The silence that ends a connection, and our own, in heartbeats: the broker allows two.
_SILENCE_SCALE: Final = 2.5
_BEAT_SCALE: Final = 0.5
_MOST_CHANNELS: Final = 2047


class Connection:
    """An AMQP 0-9-1 connection with two threads: the reader calls the channels, the writer waits for the socket.

    The constructor reads the password's and the TLS files. Raises UnreachableError if one cannot be used now.
    `on_end` is called by the reader, once, when nothing more will be delivered or answered.
    """

    def __init__(
        self,
        target: Target,
        vhost: str,
        epoch: int,
        *,
        name: str,
        role: str,
        on_end: Callable[[Connection], None],
        on_tick: Callable[[float], None] = lambda _now: None,
    ) -> None:
        self.target = target
        self.vhost = vhost
        self.reason = ""
        # The newest error that ended the connection, as the broker put it.
        self.last_error = ""
        # Why the broker takes no messages now; empty while it does.
        self.blocked = ""
        self.tuned = False
        # As the broker tells it, and the interval of heartbeats that was agreed on; 0 for none.
        self.product = ""
        self.heartbeat_s = 0
        self.frame_max = frames.FRAME_MAX
        self._first = epoch == 1
        self._name = f"{name}-{role}"
        self._on_end = on_end
        self._on_tick = on_tick
        self._close_code = 0
        self._parser = frames.Parser()
        self._write_buffer = WriteBuffer(self._write_some)
        # What the files hold now; the next connection of `target` reads them again.
        self._login = target.fresh()
        self._dialer = Dialer(target.host, target.port, self._login.tls, target.connect_timeout_s, ask=self._first)
        self._stream: Stream
        self._reader = StreamReader(
            self, name=f"infertool-amqp-{epoch}-{role}-reader", feed=self._feed, explain=self._explain
        )
        self._writer = threading.Thread(target=self._write, name=f"infertool-amqp-{epoch}-{role}-writer", daemon=True)
        self._started = False
        self._ending = threading.Lock()
        self._has_ended = threading.Event()
        # Set when the handshake is over, well or not; and when the broker agreed to close.
        self._answered, self._closed = threading.Event(), threading.Event()
        self._connected = False
        self._numbering = threading.Lock()
        # Numbers of channels that were closed: the broker allows few.
        self._free: list[int] = []
        self._channels: dict[int, Channel] = {}

    def masked(self, text: str) -> str:
        """Return what the server wrote without the password."""
        return self._login.masked(text)

    def open(self) -> None:
        """Connect and log in. Raises UnreachableError or RefusedError, and has ended then."""
        deadline = time.monotonic() + self.target.connect_timeout_s
        try:
            self._stream = Stream(self._dialer.connect(), delays_writes=False)
        except OSError as fault:
            self.end(fault.strerror or str(fault))
            raise diagnosis.unreachable(self.target, fault, ask=self._first) from None
        self._writer.start()
        self._reader.start(self._stream)
        self._started = True
        self.write(frames.HELLO)
        kind = Kind.UNKNOWN
        answered = self._answered.wait(min(HELLO_S, deadline - time.monotonic()))
        if not answered and self._first and not self._reader.first_bytes:
            kind = diagnosis.kind_behind(self._login)
        if kind in {Kind.UNKNOWN, Kind.AMQP}:  # it may be a slow broker
            kind = Kind.UNKNOWN
            answered = self._answered.wait(max(0.0, deadline - time.monotonic()))
        if not self._connected:
            self.end("the handshake failed")
            self.join()
            raise self._why_not() if answered else diagnosis.silent(self.target, kind)

    def _why_not(self) -> ServerError:
        if self._close_code:
            return refusals.login(self._close_code, self.last_error, self)
        return diagnosis.no_handshake(
            self.target, self._reader.first_bytes, self.reason, self._reader.fault, ask=self._first
        )

    def add(self, channel: Channel) -> int:
        """Register `channel`, and return its number: the frames with that number go to it."""
        with self._numbering:
            number = self._free.pop() if self._free else len(self._channels) + 1
            self._channels[number] = channel
            return number

    def discard(self, channel: Channel) -> None:
        """Forget a channel that both sides have closed."""
        with self._numbering:
            if self._channels.get(channel.number) is channel:
                del self._channels[channel.number]
                self._free.append(channel.number)

    def write(self, data: bytes) -> None:
        """Write whole frames, or queue them for the writer. Dropped when the connection has ended."""
        self._write_buffer.put(data)

    def wait_until_written(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until all but the last piece of what was queued is written, or it has ended."""
        return self._write_buffer.wait_for_room(timeout_s)

    def is_own_thread(self) -> bool:
        """Return True in the two threads that must not wait for answers."""
        return self._reader.is_current() or threading.current_thread() is self._writer

    def reader_silent_s(self) -> float:
        """Return for how long the thread that reads has not run, in seconds."""
        return self._reader.silent_s()

    def hand_off_reader(self) -> None:
        """Have a new thread read on if the reader is in a sink. Returns at once."""
        self._reader.hand_off()

    def lost(self) -> ConnectionLostError:
        """Return the error for what the connection's end left open."""
        address = self.target.address
        return ConnectionLostError(f"the connection to {address} was lost: {self.reason}", address=address)

    def end(self, reason: str) -> None:
        """End it, from any thread. The first reason counts."""
        with self._ending:
            if self.reason:
                return
            self.reason = reason
        self._write_buffer.close()
        self._dialer.abort()

    def close(self, timeout_s: float) -> None:
        """Write what is queued, say goodbye, wait up to `timeout_s` for the broker's, and end."""
        if self._connected and not self.reason:
            self.write(frames.encode(0, spec.Connection.Close(200, "closed", 0, 0)))
            self._closed.wait(timeout_s)
        self.end("closed")
        self.join()

    def join(self) -> None:
        """Wait until both threads of an ended connection are done, and close the socket."""
        if self._started:
            self._has_ended.wait()
            self._writer.join()
            self._stream.close()

    def _write(self) -> None:
        try:
            self._write_buffer.run(self._write_piece)
        except OSError as fault:
            self.end(fault.strerror or str(fault))
        except Exception as fault:  # noqa: BLE001  # no fault may leave a connection that looks alive and is not
            self.end(f"the writer failed: {fault!r}")

    def _write_some(self, data: bytes) -> bytes:
        return self._stream.write_some(data)

    def _write_piece(self, data: bytes) -> None:
        # A broker with an alarm reads nothing more, and says so, also in the middle of this; its heartbeats go on.
        patience_s = min(self._reader.silence_s, self.target.receipt_timeout_s)
        self._stream.write(data, patience_s, goes_on=lambda: bool(self.blocked))

    def on_read_end(self) -> None:
        """See `ReaderHost`."""
        self._answered.set()
        self._closed.set()
        error = self.lost()
        for channel in list(self._channels.values()):
            channel.lost(error)
        self._on_end(self)
        self._has_ended.set()

    def on_tick(self, now: float) -> str:
        """See `ReaderHost`."""
        self._on_tick(now)
        for channel in list(self._channels.values()):
            if channel.has_returned:
                with self._reader.delivering():
                    channel.deliver_returned()
        return ""

    def _explain(self, fault: Exception) -> str:
        if isinstance(fault, FrameError):
            return f"the broker sent something else than AMQP 0-9-1: {self.masked(fault.reason)}"
        return f"the reader failed: {fault!r}"

    def _feed(self, data: bytes) -> None:
        fault: FrameError | None = None
        try:
            received = self._parser.feed(data)
        except FrameError as wrong:
            fault, received = wrong, list(wrong.frames)
        called = self._dispatch(received)
        if fault:
            # Before the messages are delivered: a thread that reads on after a hand-off must find the end.
            self.end(self._explain(fault))
        for channel in called:
            with self._reader.delivering():
                channel.deliver()
        if fault:
            raise fault

    def _dispatch(self, received: list[frames.Frame]) -> list[Channel]:
        """Hand frames to their channels; return those that got some."""
        found: dict[Channel, None] = {}
        for kind, number, payload in received:
            if number == 0:
                if kind == frames.METHOD:
                    self._on_method(payload)
                elif kind != frames.HEARTBEAT:
                    raise FrameError("content on channel 0")
                continue
            channel = self._channels.get(number)
            if channel is None:
                continue  # closed by us; the broker did not know yet
            found[channel] = None
            if kind == frames.METHOD:
                channel.on_method(payload)
            elif kind == frames.HEADER:
                channel.on_header(payload)
            elif kind == frames.BODY:
                channel.on_body(payload)
            else:
                raise FrameError(f"a heartbeat on channel {number}")
        return list(found)

    def _on_method(self, payload: bytes) -> None:
        method = frames.decode(payload)
        match method:
            case spec.Connection.Start():
                self._log_in(method)
            case spec.Connection.Tune():
                self._agree(method)
            case spec.Connection.OpenOk():
                self._connected = True
                self._answered.set()
            case spec.Connection.Close():
                self._on_close(method)
            case spec.Connection.CloseOk():
                self._closed.set()
            case spec.Connection.Blocked():
                self._on_blocked(method.reason or "no reason")
            case spec.Connection.Unblocked():
                self._on_blocked("")
            case _:
                raise FrameError(f"an unexpected {method.NAME}")

    def _log_in(self, start: Any) -> None:
        self.product = _product(start.server_properties)
        user, password = self.target.user, self._login.password.reveal()
        external = not user and b"EXTERNAL" in _bytes(start.mechanisms)
        response = "" if external else f"\0{user}\0{password}"
        properties = {
            "product": "infertool",
            "connection_name": self._name,
            "capabilities": _CAPABILITIES,
        }
        mechanism = "EXTERNAL" if external else "PLAIN"
        self.write(frames.encode(0, spec.Connection.StartOk(properties, mechanism, response, "en_US")))

    def _agree(self, tune: Any) -> None:
        self.tuned = True
        self.frame_max = min(tune.frame_max or frames.FRAME_MAX, frames.FRAME_MAX)
        channels = min(tune.channel_max or _MOST_CHANNELS, _MOST_CHANNELS)
        self.heartbeat_s = heartbeat = self._heartbeat(tune.heartbeat)
        self.write(
            frames.encode(0, spec.Connection.TuneOk(channels, self.frame_max, heartbeat))
            + frames.encode(0, spec.Connection.Open(self.vhost))
        )
        if heartbeat:
            self._reader.silence_s = heartbeat * _SILENCE_SCALE
            self._write_buffer.beat(frames.BEAT, heartbeat * _BEAT_SCALE)

    def _heartbeat(self, offered: int) -> int:
        """Return the seconds that are agreed. AMQP has whole ones, and 0 for none."""
        wanted = math.ceil(self.target.heartbeat_s)
        return min(wanted, offered) if offered and wanted else wanted

    def _on_close(self, close: Any) -> None:
        self._close_code = close.reply_code
        self.last_error = self.masked(str(close.reply_text)).partition("\n")[0]
        self.write(frames.encode(0, spec.Connection.CloseOk()))
        # What the socket does not take now is lost, as all else.
        self.end(f"the broker closed the connection: {self.last_error}")

    def _on_blocked(self, reason: str) -> None:
        self.blocked = self.masked(reason)
        if reason:
            _log.warning("%s takes no messages now: %s; sends wait", self.target.address, self.blocked)
        else:
            _log.warning("%s takes messages again", self.target.address)
        for channel in list(self._channels.values()):
            channel.on_blocked()


def _product(properties: Any) -> str:
    known = properties if isinstance(properties, dict) else {}
    return " ".join(_bytes(known.get(name) or "").decode("utf-8", "replace") for name in ("product", "version")).strip()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
