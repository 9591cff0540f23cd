"""A channel server in the test process, on a loop in its own thread: for channels that the real one lacks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar, cast

from infertool.embedded.channel_server.channels import Definition, Hub, Limits
from infertool.embedded.channel_server.server import Server
from infertool.secret import Secret

T = TypeVar("T")

LONG = 120.0


class RunningHub:
    """Serve `definitions` on 127.0.0.1 while the `with` block runs."""

    def __init__(
        self, definitions: list[Definition], token: str = "", limits: Limits | None = None, port: int = 0
    ) -> None:
        self.hub = Hub(definitions, Secret(token), limits or Limits())
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(self._make_server())
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONG)
        self._loop.close()

    def stop(self) -> None:
        self._run(self._server.stop())

    def broadcast(self, topic: str, event: str, payload: object) -> None:
        async def send() -> None:
            self.hub.broadcast(topic, event, payload)

        self._run(send())

    def disconnect_all(self) -> None:
        """Close every socket, as a stopping server does, but keep listening."""

        async def close() -> None:
            for connection in list(self._server.connections):
                connection.go_away()

        self._run(close())

    def cut(self, topic: str) -> None:
        """Abort the connections that have joined `topic`, without a close frame."""

        async def abort() -> None:
            for channel in self.hub.channels(topic):
                cast("Any", channel.session.send).__self__.drop("a test cuts it")

        self._run(abort())

    async def _make_server(self) -> Server:
        server = Server(self.hub, "127.0.0.1")
        self.port = await server.start(self.port)
        return server

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LONG)
