"""The listening server, the channels that it serves, and its overload control.

Phoenix has no backpressure: messages that viewers do not read accumulate in the server's memory. So a viewer that is
far behind is disconnected, and while all viewers together are behind, publishers are paused. The reference server does
the same (fixtures/phoenix_app, lib/inference_bus/overload.ex).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from types import MappingProxyType
from typing import Any

from infertool.embedded.channel_server.channels import (
    OK,
    Answer,
    Channel,
    Definition,
    EventHandler,
    Hub,
    JoinHandler,
    RefuseJoin,
    Reply,
    Stop,
)
from infertool.embedded.channel_server.connection import Connection
from infertool.embedded.channel_server.seen import SeenEvents
from infertool.embedded.figures import MOST_NAMES, Figures
from infertool.telemetry.spans import Span

# Time between two checks of the connections' unsent data. Seconds.
_CHECK_S = 0.1

_log = logging.getLogger(__name__)

REBROADCAST = MappingProxyType(
    {
        "new_result": "public:results",
        "new_results": "public:results",  # a batch, {"results": [...]}; viewers unpack it
        "inference_failed": "public:alerts",
        "alert": "public:alerts",
    }
)


def definitions(export: Callable[[Sequence[Span]], None] | None = None) -> list[Definition]:
    """Return `service:*` (requires the token, if one is set) and `public:*` (open to anyone).

    With `export` viewers are asked which recorded events they show, and it gets the spans.
    """
    join: JoinHandler = join_public
    handle: EventHandler = handle_public
    if export:
        seen = SeenEvents(export, join_public, handle_public)
        join, handle = seen.join, seen.handle
    return [
        Definition("service:*", join_service, handle_service),
        Definition("public:*", join, handle),
    ]


def join_service(channel: Channel, _params: object) -> dict[str, Any]:
    """Accept a socket that presented the token."""
    if not channel.authorized:
        raise RefuseJoin("unauthorized")
    channel.flow.notify_joined(channel)
    return {"accepts": ["new_results"]}


def handle_service(channel: Channel, event: str, payload: object) -> Answer:
    """Broadcast results and alerts, and reply to every push."""
    public_topic = REBROADCAST.get(event) if isinstance(event, str) else None
    if public_topic:
        channel.broadcast(public_topic, event, payload)
    elif event == "flow":
        channel.flow.set_by_operator(channel.topic, payload)
    elif event == "echo":
        return Reply(payload)
    elif event == "boom":
        raise RuntimeError("boom")
    elif event == "stop":
        return Stop()
    return OK


def join_public(channel: Channel, params: object) -> dict[str, Any]:
    """Accept any socket; send a rejoining one the broadcasts that it missed, if it asks for them."""
    after = params.get("after") if isinstance(params, dict) else None
    return {} if after is None else channel.catch_up(after)


def handle_public(_channel: Channel, _event: str, _payload: object) -> Answer:
    """Reply with an error: these topics are read-only."""
    return Reply({"reason": "read_only"}, status="error")


_LINGER_S = 1.0
"""Maximum time that a stop waits for clients to read their close frames."""


class Overload:
    """Checks every connection ten times a second. Create, start and stop it inside the server's loop."""

    def __init__(self, hub: Hub, connections: Collection[Connection]) -> None:
        self._hub = hub
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the checks."""
        self._timer = self._loop.call_later(_CHECK_S, self._check)

    def stop(self) -> None:
        """Stop the checks."""
        if self._timer:
            self._timer.cancel()

    def _check(self) -> None:
        self.start()
        limits, now = self._hub.limits, self._loop.time()
        messages = size = 0
        for connection in list(self._connections):
            if connection.waiting > limits.viewer_messages:
                connection.drop(f"{connection.waiting} messages wait for it")
            elif connection.is_stuck(now):
                connection.drop(f"it has read nothing for {limits.send_timeout_s:g} s")
            else:
                messages += connection.waiting
                size += connection.waiting_bytes
        self._adjust_flow(max(messages / limits.all_messages, size / limits.all_bytes), messages)

    def _adjust_flow(self, load: float, messages: int) -> None:
        flow = self._hub.flow
        if load > 1 and not flow.overloaded:
            _log.warning("publishers are paused: %d messages wait for viewers that read too slowly", messages)
            flow.pause_all()
        elif load < 0.5 and flow.overloaded:  # noqa: PLR2004 - half
            _log.warning("the viewers have caught up: publishers go on")
            flow.resume_all()


class Server:
    """A listening channel server. Create and use it inside one event loop."""

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
        """Stop listening, close every socket as Phoenix does, and wait up to 1 s for the clients."""
        self._overload.stop()
        if self._listener:
            self._listener.close()
        for connection in list(self.connections):
            connection.go_away()
        if self.connections:
            self._all_left.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_left.wait(), _LINGER_S)

    def left(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_left.set()

    def describe(self) -> dict[str, object]:
        """Return the body of `/health`."""
        return {"status": "ok", "connections": len(self.connections), "topics": self.hub.describe()}

    def figures(self) -> Figures:
        """Return the figures of the server: of the topics with most sockets."""
        topics = sorted(self.hub.describe().items(), key=lambda item: -item[1])[:MOST_NAMES]
        return Figures(len(self.connections), topics=dict(topics), paused=self.hub.flow.overloaded)
