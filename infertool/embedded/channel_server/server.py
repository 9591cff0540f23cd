"""The hub as a server: listen, serve, stop."""

from __future__ import annotations

import asyncio
import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from infertool.embedded.channel_server.channels import OK, Answer, Channel, Definition, RefuseJoin, Reply, Stop
from infertool.embedded.channel_server.connection import Connection
from infertool.embedded.channel_server.overload import Overload

if TYPE_CHECKING:
    from infertool.embedded.channel_server.hub import Hub


REBROADCAST = MappingProxyType(
    {
        "new_result": "public:results",
        "new_results": "public:results",  # a batch, {"results": [...]}; whoever listens takes it apart
        "inference_failed": "public:alerts",
        "alert": "public:alerts",
    }
)


def definitions() -> list[Definition]:
    """Return `service:*` (with the token, if one is set) and `public:*` (for anyone)."""
    return [
        Definition("service:*", join_service, handle_service),
        Definition("public:*", join_public, handle_public),
    ]


def join_service(channel: Channel, _params: object) -> dict[str, Any]:
    """Let in who brought the token."""
    if not channel.authorized:
        raise RefuseJoin("unauthorized")
    channel.flow.welcome(channel)
    return {}


def handle_service(channel: Channel, event: str, payload: object) -> Answer:
    """Broadcast results and alerts, and answer every push."""
    public_topic = REBROADCAST.get(event) if isinstance(event, str) else None
    if public_topic:
        channel.broadcast(public_topic, event, payload)
    elif event == "flow":
        channel.flow.say(channel.topic, payload)
    elif event == "echo":
        return Reply(payload)
    elif event == "boom":
        raise RuntimeError("boom")
    elif event == "stop":
        return Stop()
    return OK


def join_public(channel: Channel, params: object) -> dict[str, Any]:
    """Let in anyone; give who comes back what it missed, if it asks for that."""
    after = params.get("after") if isinstance(params, dict) else None
    return {} if after is None else channel.catch_up(after)


def handle_public(_channel: Channel, _event: str, _payload: object) -> Answer:
    """Refuse, with an answer: these topics are for listening."""
    return Reply({"reason": "read_only"}, status="error")


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
