"""The asyncio side: sockets, heartbeats, time limits."""

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

HANDSHAKE_TIMEOUT_S = 10.0
# A client that promised heartbeats is dropped after this many times its promise (ActiveMQ: 3 to 4.5 times).
_SILENCES = 3.0
# How long a client may take to read its last frames.
_FAREWELL_S = 5.0
_SWEEP_EVERY_S = 1.0
# A client says CONNECT within milliseconds. More than these that do not are no clients.
_MOST_STRANGERS = 200


class Server:
    """A broker that listens. One instance an event loop."""

    def __init__(
        self, login: Login, *, page_size: int | None = None, handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    ) -> None:
        identity = f"ID:{socket.gethostname()}-{os.getpid()}-{_now_ms()}-1"
        self.broker = Broker(identity, _now_ms, page_size=page_size)
        self.handshake_timeout_s = handshake_timeout_s
        self.login = login
        self.numbers = itertools.count(1)
        self.connections: set[Connection] = set()
        # Those that have not said CONNECT, the oldest first.
        self.strangers: dict[Connection, None] = {}
        self._to_flush: dict[Connection, None] = {}
        self._wakes_ms = 0
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises OSError when it is taken."""
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

    def greet(self, connection: Connection) -> None:
        """Wait for the connection's CONNECT. If too many are waited for, the oldest is closed."""
        self.strangers[connection] = None
        if len(self.strangers) > _MOST_STRANGERS:
            next(iter(self.strangers)).abort()

    def wants_to_write(self, connection: Connection) -> None:
        """Note that a connection has output."""
        self._to_flush[connection] = None

    def pump(self) -> None:
        """Deliver what can be delivered, and write it, one write a connection."""
        self.broker.dispatch()
        to_flush, self._to_flush = self._to_flush, {}
        for connection in to_flush:
            connection.flush()
        self._wake_at(self.broker.scheduler.next_ms)
        if self.broker.dirty:
            # Somebody's output was full. By the next turn of the loop it is known whether he reads.
            asyncio.get_running_loop().call_soon(self.pump)

    def _wake_at(self, due_ms: int | None) -> None:
        """Deliver again when the next scheduled message is due."""
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
        self._farewell = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for CONNECT."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=OUTPUT_LIMIT)
        self._server.connections.add(self)
        self._server.greet(self)
        self._after("handshake", self._server.handshake_timeout_s, self._too_late)

    def data_received(self, data: bytes) -> None:
        """Serve what came, and everybody whom it concerns."""
        if self._farewell:
            return
        self._heard_at = self._loop.time()
        agreed = self._session.agreement is not None
        self._session.receive(data)
        if not agreed and self._session.agreement is not None:
            self._server.strangers.pop(self, None)
            self._begin_heartbeats()
        if self._session.closing:
            # DISCONNECT without a receipt leaves nothing to write.
            self._wants_to_write()
        self._server.pump()

    def pause_writing(self) -> None:
        """Stop reading, too: answers to what he sends would pile up."""
        self._session.paused = True
        if not self._farewell:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._heard_at = self._loop.time()
        self._transport.resume_reading()
        self._session.resume()
        self._server.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Give everything back."""
        for timer in self._timers.values():
            timer.cancel()
        self._server.connections.discard(self)
        self._server.strangers.pop(self, None)
        self._session.end()
        self._server.pump()

    def abort(self) -> None:
        """Close at once."""
        self._server.strangers.pop(self, None)
        self._transport.abort()

    def flush(self) -> None:
        """Write what the session has; end the connection if it is done."""
        output = self._session.take_output()
        if self._transport.is_closing() or self._farewell:
            return
        self._wrote_at = self._loop.time()
        self._transport.write(output)
        if self._session.closing:
            self._say_farewell()

    def _say_farewell(self) -> None:
        """Close our side only: closing with unread input would reset the connection and destroy the last frames."""
        self._farewell = True
        self._session.end()
        self._transport.resume_reading()
        # A client that has reset its connection by now is no reason to stop here: others wait for their output.
        with contextlib.suppress(OSError):
            self._transport.write_eof()
        self._after("farewell", _FAREWELL_S, self.abort)

    def _wants_to_write(self) -> None:
        self._server.wants_to_write(self)

    def _after(self, name: str, delay_s: float, act: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay_s, act)

    def _too_late(self) -> None:
        if self._session.agreement is None and not self._farewell:
            self._session.fail(f"no CONNECT within {self._server.handshake_timeout_s:g} s")
            self._server.pump()

    def _begin_heartbeats(self) -> None:
        agreement = self._session.agreement
        if agreement and agreement.client_beats_s:
            self._check_silence(agreement.client_beats_s)
        if agreement and agreement.server_beats_s:
            # Only after CONNECTED: a line end in front of that is no heartbeat to some clients.
            half = agreement.server_beats_s / 2
            self._after("beat", half, lambda: self._beat(half))

    def _check_silence(self, promise_s: float) -> None:
        """Drop a client that broke its promise. One that we do not read from cannot be heard."""
        if not self._session.paused and self._loop.time() - self._heard_at > _SILENCES * promise_s:
            self.abort()
            return
        self._after("silence", promise_s, lambda: self._check_silence(promise_s))

    def _beat(self, interval_s: float) -> None:
        """Look at half the promised interval, so that no silence is longer than the promise."""
        idle = self._loop.time() - self._wrote_at >= interval_s
        if idle and not (self._session.paused or self._farewell or self._transport.is_closing()):
            self._transport.write(b"\n")
        self._after("beat", interval_s, lambda: self._beat(interval_s))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
