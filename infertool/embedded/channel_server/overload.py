"""Viewers that do not keep up: one that is far behind is ended; while all together are, publishers pause.

As fixtures/phoenix_app does it (lib/inference_bus/overload.ex): Phoenix itself has no backpressure, and what its
viewers do not read piles up in the server's memory.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from infertool.embedded.channel_server.channels import Channel
    from infertool.embedded.channel_server.connection import Connection
    from infertool.embedded.channel_server.hub import Hub


_PUBLISHERS = "service:"

_log = logging.getLogger(__name__)


class Flow:
    """The pauses of a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.overloaded = False

    def welcome(self, channel: Channel) -> None:
        """Tell a publisher that joins whether it has to wait."""
        if self.overloaded:
            channel.push("flow", {"state": "pause"})

    def say(self, topic: str, payload: object) -> None:
        """Take an operator's `flow` on `topic`, and pass it on. Raises `TypeError` as a broadcast does.

        A resume while viewers are behind comes into force when they have caught up.
        """
        state = payload.get("state") if isinstance(payload, dict) else None
        if state in {"pause", "resume"}:
            for channel in self._hub.channels(topic):
                channel.held = state == "pause"
        if state == "resume" and self.overloaded:
            _log.warning("%.100s stays paused until the viewers have caught up", topic)
        else:
            self._hub.broadcast(topic, "flow", payload)

    def overload(self) -> None:
        """Pause all publishers."""
        self.overloaded = True
        for channel in self._hub.channels(_PUBLISHERS, prefix=True):
            channel.push("flow", {"state": "pause"})

    def relieve(self) -> None:
        """Let go those publishers that no operator holds back."""
        self.overloaded = False
        for channel in self._hub.channels(_PUBLISHERS, prefix=True):
            if not channel.held:
                channel.push("flow", {"state": "resume"})


_LOOK_S = 0.1


class Overload:
    """Looks at every connection ten times a second. Create, start and stop it inside the server's loop."""

    def __init__(self, hub: Hub, connections: Collection[Connection]) -> None:
        self._hub = hub
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on."""
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
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
        self._judge(max(messages / limits.all_messages, size / limits.all_bytes), messages)

    def _judge(self, load: float, messages: int) -> None:
        flow = self._hub.flow
        if load > 1 and not flow.overloaded:
            _log.warning("publishers are paused: %d messages wait for viewers that read too slowly", messages)
            flow.overload()
        elif load < 0.5 and flow.overloaded:  # noqa: PLR2004 - half
            _log.warning("the viewers have caught up: publishers go on")
            flow.relieve()
