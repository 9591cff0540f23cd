"""A loopback TCP proxy that misbehaves on command, between a client and a server under test."""

from __future__ import annotations

import asyncio
import ssl
import threading
from typing import Any, Self

TIMEOUT_S = 120.0


class _Line:
    """One proxied connection."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self.client = client
        self.server = server

    async def pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, to_client: bool) -> None:
        try:
            while data := await source.read(65536):
                if not to_client and not self._proxy.flowing.is_set():
                    self._proxy.holding.set()
                await self._proxy.flowing.wait()
                if to_client:
                    self._proxy.greeted(self)
                    data = self._proxy.spend(data)
                sink.write(data)
                await sink.drain()
                if to_client and self._proxy.left_to_client == 0:
                    break
        except OSError:
            pass
        finally:
            self.cut()

    def cut(self) -> None:
        self.client.transport.abort()
        if not self._proxy.farewell:
            self.server.transport.abort()
        elif not self.server.is_closing():
            self.server.write(self._proxy.farewell)
            self.server.close()


class Proxy:
    """Listens on `port` of 127.0.0.1 and forwards to `server_port`; with `tls` it speaks TLS to its clients.

    A cut resets both sides; with a `farewell` the server gets these bytes, and an orderly end.
    """

    def __init__(self, server_port: int, *, tls: ssl.SSLContext | None = None, farewell: bytes = b"") -> None:
        self._server_port = server_port
        self.farewell = farewell
        self._tls = tls
        self._lines: set[_Line] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.flowing: asyncio.Event
        # Set when a stalled line holds something back that the client wrote.
        self.holding = threading.Event()
        self.left_to_client: int | None = None
        self._left_to_next: int | None = None
        self.connections = 0
        # Connections to whose clients the server has said something.
        self.answered = 0
        self._silent: set[_Line] = set()
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"stomp{'+ssl' if self._tls else ''}://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection."""
        self._run(self._cut())

    def cut_after(self, size: int) -> None:
        """Let `size` more bytes through to the client, then reset."""
        self.left_to_client = size

    def cut_next_after(self, size: int) -> None:
        """Let `size` bytes through to the next client that connects, then reset."""
        self._left_to_next = size

    def stall(self) -> None:
        """Forward nothing any more, either way, and keep the connections."""
        self._run(self._set_flowing(on=False))

    def resume(self) -> None:
        self._run(self._set_flowing(on=True))

    def inject(self, data: bytes) -> None:
        """Send `data` to every client as if the server had."""
        self._run(self._inject(data))

    def greeted(self, line: _Line) -> None:
        """Note that the server says something to the client of `line`."""
        if line in self._silent:
            self._silent.discard(line)
            self.answered += 1

    def reading(self, server: asyncio.StreamReader) -> Any:
        """Return what is read for the client: another protocol may have to change it."""
        return server

    def spend(self, data: bytes) -> bytes:
        if self.left_to_client is None:
            return data
        data = data[: self.left_to_client]
        self.left_to_client -= len(data)
        return data

    def _run(self, task: Any) -> None:
        asyncio.run_coroutine_threadsafe(task, self._loop).result(TIMEOUT_S)

    async def _listen(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.left_to_client, self._left_to_next = self._left_to_next, None
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(self, writer, server_writer)
        self._lines.add(line)
        self._silent.add(line)
        await asyncio.gather(
            line.pump(reader, server_writer, to_client=False),
            line.pump(self.reading(server_reader), writer, to_client=True),
        )
        self._lines.discard(line)

    async def _cut(self) -> None:
        for line in self._lines:
            line.cut()

    async def _inject(self, data: bytes) -> None:
        for line in self._lines:
            line.client.write(data)

    async def _set_flowing(self, *, on: bool) -> None:
        if on:
            self.flowing.set()
        else:
            self.flowing.clear()

    async def _end(self) -> None:
        self._listener.close()
        self.flowing.set()
        # Each connection has tasks from its acceptance on: one that is still pending would end with the loop.
        while serving := asyncio.all_tasks() - {asyncio.current_task()}:
            # Again: one that was just being connected to the server was not there to be cut.
            await self._cut()
            await asyncio.wait(serving, timeout=0.1)
