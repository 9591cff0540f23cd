"""Channel definitions, the channel that a handler receives, flow control of publishers, and the topics' members.

A channel uses its socket and the channel server through the protocols `Socket` and `Bus`. `Hub` holds the
members of each topic, broadcasts to them, and keeps the recent broadcasts that a rejoin can ask for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from infertool.embedded.channel_server import wire
from infertool.phoenix.frames import Vsn
from infertool.secret import Secret

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
        """True if the socket presented the token, or none is required."""

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
        """True if the socket presented the token, or none is required."""
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


_PUBLIC = "public:"
# Limits of each topic's recent broadcasts.
_MOST = 1_000
_MOST_BYTES = 8_388_608


class Member(Protocol):
    """A socket that has joined a topic."""

    @property
    def vsn(self) -> Vsn:
        """The version of the channel protocol."""

    def channel(self, topic: str) -> Channel:
        """Return the socket's channel of `topic`, which it has joined."""

    def deliver(self, packet: bytes) -> None:
        """Send a finished WebSocket frame."""


@dataclass(slots=True)
class _Topic:
    kept: deque[tuple[object, bytes]] = field(default_factory=deque)
    size: int = 0

    def add(self, event_id: object, packet: bytes) -> None:
        self.kept.append((event_id, packet))
        self.size += len(packet)
        while len(self.kept) > _MOST or self.size > _MOST_BYTES:
            self.size -= len(self.kept.popleft()[1])


class Recent:
    """The last 1000 broadcasts of each public topic, at most 8 MiB a topic."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    @staticmethod
    def keeps(topic: str) -> bool:
        """Return True if broadcasts on `topic` are kept."""
        return topic.startswith(_PUBLIC)

    def note(self, topic: str, payload: object, packet: bytes) -> None:
        """Keep a broadcast."""
        if topic not in self._topics:
            self._topics[topic] = _Topic()
        self._topics[topic].add(_last_id(payload), packet)

    def after(self, topic: str, event_id: object) -> tuple[list[bytes], bool]:
        """Return the packets that followed `event_id`, and True. If it is unknown, return all packets, and False."""
        kept = list(self._topics[topic].kept) if topic in self._topics else []
        for place in range(len(kept) - 1, -1, -1):
            if kept[place][0] == event_id:
                return [packet for _, packet in kept[place + 1 :]], True
        return [packet for _, packet in kept], False


def _last_id(payload: object) -> object:
    """Return the event_id of a broadcast, or of the last result in a batch."""
    if not isinstance(payload, dict):
        return None
    results = payload.get("results")
    last = results[-1] if isinstance(results, list) and results else payload
    return last.get("event_id") if isinstance(last, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a socket, and of all sockets together. Defaults follow Phoenix 1.8 where it has such a limit."""

    idle_s: float = 60.0
    """Maximum time without a frame from the client."""
    request_s: float = 10.0
    """Maximum time from the connection to the end of its HTTP request."""
    max_frame_bytes: int = 10_000_000
    max_channels: int = 100
    max_unsent_bytes: int = 8_388_608
    """Unsent bytes at which a slow socket is closed, so that it does not use up memory. Phoenix has no such limit."""
    viewer_messages: int = 2_000
    """Unsent messages at which a slow socket is closed."""
    send_timeout_s: float = 30.0
    """A socket with unsent data is closed when its client reads nothing for this time."""
    all_messages: int = 10_000
    """Unsent messages of all sockets together at which publishers are paused, until half of that is left."""
    all_bytes: int = 67_108_864
    """Unsent bytes of all sockets together at which publishers are paused, until half of that is left."""


@dataclass(slots=True)
class Hub:
    """The channel definitions, the topics' members, and the token. One event loop owns it."""

    definitions: Sequence[Definition]
    token: Secret = field(default_factory=Secret)
    """The token that a socket must present; empty if any socket may join any topic."""
    limits: Limits = field(default_factory=Limits)
    flow: Flow = field(init=False)
    recent: Recent = field(default_factory=Recent)
    _members: dict[str, set[Member]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.flow = Flow(self)

    def enter(self, topic: str, session: Member) -> None:
        """Add the socket to the topic's members."""
        self._members.setdefault(topic, set()).add(session)

    def leave(self, topic: str, session: Member) -> None:
        """Remove the socket from the topic's members."""
        members = self._members[topic]
        members.discard(session)
        if not members:
            del self._members[topic]

    def channels(self, name: str, *, prefix: bool = False) -> list[Channel]:
        """Return the channels of topic `name`, or of all topics that start with it."""
        topics = [topic for topic in self._members if topic.startswith(name)] if prefix else [name]
        return [session.channel(topic) for topic in topics for session in self._members.get(topic, ())]

    def broadcast(self, topic: str, event: str, payload: object) -> None:
        """Send an event to every member. Raises `TypeError` unless `payload` is an object or bytes.

        Raises `FrameError`, and sends nothing, for bytes when a member speaks vsn 1.0.0.
        """
        if not isinstance(payload, dict | bytes):
            raise TypeError("only an object or bytes can be broadcast")
        members = self._members.get(topic, ())
        vsns = {member.vsn for member in members}
        if self.recent.keeps(topic):
            vsns.add("2.0.0")
        encoded: dict[Vsn, bytes] = {vsn: wire.broadcast(vsn, topic, event, payload) for vsn in vsns}
        if self.recent.keeps(topic):
            self.recent.note(topic, payload, encoded["2.0.0"])
        for member in members:
            member.deliver(encoded[member.vsn])

    def describe(self) -> dict[str, int]:
        """Return the number of sockets by topic."""
        return {topic: len(members) for topic, members in self._members.items()}
