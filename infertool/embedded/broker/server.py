"""The asyncio server: sockets, heartbeats, time limits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable
from typing import cast

from infertool.embedded.broker.client import Login
from infertool.embedded.broker.core import Broker
from infertool.embedded.broker.session import OUTPUT_LIMIT, Session
from infertool.embedded.figures import MOST_NAMES, Figures

HANDSHAKE_TIMEOUT_S = 10.0
# A silent client is dropped after this many of its heartbeat intervals (ActiveMQ: 3 to 4.5).
_SILENCES = 3.0
# Time that a client has to read its last frames. Seconds.
_LINGER_S = 5.0
_SWEEP_EVERY_S = 1.0
# Maximum of connections without CONNECT. A client sends CONNECT within milliseconds.
_MOST_UNCONNECTED = 200


class Server:
    """A listening broker. One instance for each event loop."""

    def __init__(
        self, login: Login, *, page_size: int | None = None, handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    ) -> None:
        identity = f"ID:{socket.gethostname()}-{os.getpid()}-{_now_ms()}-1"
        self.broker = Broker(identity, _now_ms, page_size=page_size)
        self.handshake_timeout_s = handshake_timeout_s
        self.login = login
        self.numbers = itertools.count(1)
        self.connections: set[Connection] = set()
        # Connections without CONNECT, the oldest first.
        self.unconnected: dict[Connection, None] = {}
        self._to_flush: dict[Connection, None] = {}
        self._wakes_ms = 0
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises `OSError` if it is taken."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), host, port, reuse_address=True)
        self._sweep()
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the listener and all connections."""
        if self._sweeper:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.abort()
        if self._listener:
            self._listener.close()
            await self._listener.wait_closed()

    def figures(self) -> Figures:
        """Return the figures of the broker: of its largest queues."""
        queues = sorted(self.broker.queues.values(), key=lambda queue: -queue.size)[:MOST_NAMES]
        return Figures(len(self.connections), [queue.figures() for queue in queues])

    def await_connect(self, connection: Connection) -> None:
        """Wait for the connection's CONNECT. Close the oldest connection without CONNECT if there are too many."""
        self.unconnected[connection] = None
        if len(self.unconnected) > _MOST_UNCONNECTED:
            next(iter(self.unconnected)).abort()

    def wants_to_write(self, connection: Connection) -> None:
        """Mark a connection for writing."""
        self._to_flush[connection] = None

    def pump(self) -> None:
        """Deliver messages, and write the output of each connection in one write."""
        self.broker.dispatch()
        to_flush, self._to_flush = self._to_flush, {}
        for connection in to_flush:
            connection.flush()
        self._wake_at(self.broker.scheduler.next_ms)
        if self.broker.dirty:
            # A client's output was full. In the next loop iteration it is known whether the client reads.
            asyncio.get_running_loop().call_soon(self.pump)

    def _wake_at(self, due_ms: int | None) -> None:
        """Schedule a delivery for the next scheduled message."""
        if due_ms is not None and due_ms != self._wakes_ms:
            self._wakes_ms = due_ms
            wait_s = max(0, due_ms - self.broker.now_ms()) / 1000
            asyncio.get_running_loop().call_later(wait_s, self.pump)

    def _sweep(self) -> None:
        self.broker.sweep()
        self.pump()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_EVERY_S, self._sweep)


class Connection(asyncio.Protocol):
    """One socket and its session."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._session = Session(server.broker, server.login, next(server.numbers), self._wants_to_write)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._heard_at = self._wrote_at = 0.0
        self._lingering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, and start the time limit for CONNECT."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=OUTPUT_LIMIT)
        self._server.connections.add(self)
        self._server.await_connect(self)
        self._after("handshake", self._server.handshake_timeout_s, self._too_late)

    def data_received(self, data: bytes) -> None:
        """Handle received data, and deliver to all connections that it affects."""
        if self._lingering:
            return
        self._heard_at = self._loop.time()
        agreed = self._session.agreement is not None
        self._session.receive(data)
        if not agreed and self._session.agreement is not None:
            self._server.unconnected.pop(self, None)
            self._begin_heartbeats()
        if self._session.closing:
            # DISCONNECT without a receipt leaves nothing to write.
            self._wants_to_write()
        self._server.pump()

    def pause_writing(self) -> None:
        """Also stop reading: answers to further frames would accumulate."""
        self._session.paused = True
        if not self._lingering:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read and deliver again."""
        self._heard_at = self._loop.time()
        self._transport.resume_reading()
        self._session.resume()
        self._server.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Return the client's messages to their queues."""
        for timer in self._timers.values():
            timer.cancel()
        self._server.connections.discard(self)
        self._server.unconnected.pop(self, None)
        self._session.end()
        self._server.pump()

    def abort(self) -> None:
        """Close at once."""
        self._server.unconnected.pop(self, None)
        self._transport.abort()

    def flush(self) -> None:
        """Write the session's output; end the connection if the session is closing."""
        output = self._session.take_output()
        if self._transport.is_closing() or self._lingering:
            return
        self._wrote_at = self._loop.time()
        self._transport.write(output)
        if self._session.closing:
            self._close_write_side()

    def _close_write_side(self) -> None:
        """Close the write side only: closing with unread input would reset the connection and lose the last frames."""
        self._lingering = True
        self._session.end()
        self._transport.resume_reading()
        # The client may have reset its connection; the other connections must still be written.
        with contextlib.suppress(OSError):
            self._transport.write_eof()
        self._after("linger", _LINGER_S, self.abort)

    def _wants_to_write(self) -> None:
        self._server.wants_to_write(self)

    def _after(self, name: str, delay_s: float, act: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay_s, act)

    def _too_late(self) -> None:
        if self._session.agreement is None and not self._lingering:
            self._session.fail(f"no CONNECT within {self._server.handshake_timeout_s:g} s")
            self._server.pump()

    def _begin_heartbeats(self) -> None:
        agreement = self._session.agreement
        if agreement and agreement.client_beats_s:
            self._check_silence(agreement.client_beats_s)
        if agreement and agreement.server_beats_s:
            # Only after CONNECTED: some clients do not accept a line end before it.
            half = agreement.server_beats_s / 2
            self._after("beat", half, lambda: self._beat(half))

    def _check_silence(self, promise_s: float) -> None:
        """Drop a client that sent no heartbeat. A paused client is not read from, so it is not checked."""
        if not self._session.paused and self._loop.time() - self._heard_at > _SILENCES * promise_s:
            self.abort()
            return
        self._after("silence", promise_s, lambda: self._check_silence(promise_s))

    def _beat(self, interval_s: float) -> None:
        """Check at half the promised interval, so that no silence exceeds it."""
        idle = self._loop.time() - self._wrote_at >= interval_s
        if idle and not (self._session.paused or self._lingering or self._transport.is_closing()):
            self._transport.write(b"\n")
        self._after("beat", interval_s, lambda: self._beat(interval_s))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
