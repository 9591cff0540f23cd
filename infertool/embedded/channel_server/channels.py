"""Channel definitions, the channel that a handler receives, and flow control of publishers.

A channel uses its socket and the channel server through the protocols `Socket` and `Bus`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

_PUBLISHERS = "service:"

_log = logging.getLogger(__name__)


class RefuseJoin(Exception):  # noqa: N818 - it is an answer, not an error
    """A join handler raises this to refuse: the client gets `{"reason": ...}` with the status `error`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a push or join. `response` is a JSON object, or bytes for a binary reply."""

    response: Any = field(default_factory=dict)
    status: str = "ok"


OK = Reply()
"""`{:reply, :ok, socket}`."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends the channel normally, after `reply` if it is set. The client gets `phx_close`."""

    reply: Reply | None = None


Answer: TypeAlias = Reply | Stop | None
"""None is `{:noreply, ...}`."""


class Bus(Protocol):
    """The channel server as its channels use it."""

    @property
    def flow(self) -> Flow:
        """The flow control of its publishers."""

    def channels(self, name: str, *, prefix: bool = False) -> list[Channel]:
        """Return the channels of topic `name`, or of all topics that start with it."""

    def broadcast(self, topic: str, event: str, payload: object) -> None:
        """Send an event to every member of `topic`. Raises `TypeError` unless `payload` is an object or bytes."""


class Socket(Protocol):
    """The socket that joined a channel, as the channel uses it."""

    @property
    def hub(self) -> Bus:
        """The channel server."""

    @property
    def authorized(self) -> bool:
        """Whether the socket presented the token, or none is required."""

    @property
    def send(self) -> Callable[[bytes], None]:
        """Sends a finished WebSocket frame."""

    def push(self, channel: Channel, event: str, payload: object) -> None:
        """Send an event to this client only."""

    def catch_up(self, topic: str, event_id: object) -> dict[str, Any]:
        """Send the broadcasts that followed `event_id`, after the join's reply; return that reply."""


class Channel:
    """One topic joined by one socket.

    `join_ref` comes from the join. `reply_ref` goes into replies and pushes: the join_ref, or the join's ref if it has
    no join_ref. `paused` is set while an operator pauses this publisher.
    """

    __slots__ = ("alive", "definition", "join_ref", "paused", "reply_ref", "session", "topic")

    def __init__(
        self, session: Socket, definition: Definition, topic: str, join_ref: object, reply_ref: object
    ) -> None:
        self.session = session
        self.definition = definition
        self.topic = topic
        self.join_ref = join_ref
        self.reply_ref = reply_ref
        self.alive = True
        self.paused = False

    @property
    def authorized(self) -> bool:
        """Whether the socket presented the token, or none is required."""
        return self.session.authorized

    @property
    def flow(self) -> Flow:
        """The flow control of publishers."""
        return self.session.hub.flow

    def push(self, event: str, payload: object) -> None:
        """Send an event to this channel's client only."""
        self.session.push(self, event, payload)

    def catch_up(self, event_id: object) -> dict[str, Any]:
        """Send the topic's broadcasts that followed `event_id`, after the join's reply; return that reply."""
        return self.session.catch_up(self.topic, event_id)

    def broadcast(self, topic: str, event: str, payload: object) -> None:
        """Send an event to every member of `topic`. Raises `TypeError` unless `payload` is an object or bytes.

        An uncaught `TypeError` crashes the channel, as `broadcast!` does.
        """
        self.session.hub.broadcast(topic, event, payload)


JoinHandler: TypeAlias = Callable[[Channel, Any], Any]
"""Takes the channel and the join's payload, returns the reply's response, or raises `RefuseJoin`."""

EventHandler: TypeAlias = Callable[[Channel, str, Any], Answer]
"""Takes the channel, the event and its payload. An exception crashes the channel (`phx_error`)."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The channel of all topics that match `pattern`: an exact topic, or a prefix followed by `*`."""

    pattern: str
    join: JoinHandler
    handle: EventHandler

    def matches(self, topic: str) -> bool:
        """Return True if `topic` belongs to this channel."""
        if self.pattern.endswith("*"):
            return topic.startswith(self.pattern[:-1])
        return topic == self.pattern


def find(definitions: Sequence[Definition], topic: str) -> Definition | None:
    """Return the first definition whose pattern matches."""
    return next((definition for definition in definitions if definition.matches(topic)), None)


class Flow:
    """Pauses and resumes publishers: for an operator, and while viewers are overloaded."""

    def __init__(self, hub: Bus) -> None:
        self._hub = hub
        self.overloaded = False

    def notify_joined(self, channel: Channel) -> None:
        """Pause a publisher that joins during an overload."""
        if self.overloaded:
            channel.push("flow", {"state": "pause"})

    def set_by_operator(self, topic: str, payload: object) -> None:
        """Apply an operator's `flow` event on `topic`, and broadcast it. Raises `TypeError` as a broadcast does.

        A resume during an overload takes effect when the overload ends.
        """
        state = payload.get("state") if isinstance(payload, dict) else None
        if state in {"pause", "resume"}:
            for channel in self._hub.channels(topic):
                channel.paused = state == "pause"
        if state == "resume" and self.overloaded:
            _log.warning("%.100s stays paused until the viewers have caught up", topic)
        else:
            self._hub.broadcast(topic, "flow", payload)

    def pause_all(self) -> None:
        """Begin an overload: pause all publishers."""
        self.overloaded = True
        for channel in self._hub.channels(_PUBLISHERS, prefix=True):
            channel.push("flow", {"state": "pause"})

    def resume_all(self) -> None:
        """End an overload: resume the publishers that no operator paused."""
        self.overloaded = False
        for channel in self._hub.channels(_PUBLISHERS, prefix=True):
            if not channel.paused:
                channel.push("flow", {"state": "resume"})
