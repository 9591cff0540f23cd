"""The hub as a server: listen, serve, stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from infertool.devserver.hub.connection import Connection
from infertool.devserver.hub.overload import Overload

if TYPE_CHECKING:
    from infertool.devserver.hub.hub import Hub

_FAREWELL_S = 1.0
"""How long a stop waits for clients to take their close frames."""


class Server:
    """A listening hub. Create and use it inside one event loop."""

    def __init__(self, hub: Hub, host: str) -> None:
        self.hub = hub
        self.host = host
        self.connections: set[Connection] = set()
        self._all_left = asyncio.Event()
        self._overload = Overload(hub, self.connections)
        self._listener: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """Listen; 0 takes any port. Return the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._overload.start()
        self._listener = await loop.create_server(lambda: Connection(self), self.host, port)
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening, close every socket as Phoenix does, and wait a moment for the clients."""
        self._overload.stop()
        if self._listener:
            self._listener.close()
        for connection in list(self.connections):
            connection.go_away()
        if self.connections:
            self._all_left.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_left.wait(), _FAREWELL_S)

    def left(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_left.set()

    def describe(self) -> dict[str, object]:
        """Return the body of `/health`."""
        return {"status": "ok", "connections": len(self.connections), "topics": self.hub.describe()}
