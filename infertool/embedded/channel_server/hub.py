"""Topics: their members, broadcasts to them, and the recent broadcasts that a rejoin can ask for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infertool.embedded.channel_server import packets
from infertool.embedded.channel_server.channels import Channel, Definition, Flow
from infertool.phoenix.frames import Vsn
from infertool.secret import Secret

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
        encoded: dict[Vsn, bytes] = {vsn: packets.broadcast(vsn, topic, event, payload) for vsn in vsns}
        if self.recent.keeps(topic):
            self.recent.note(topic, payload, encoded["2.0.0"])
        for member in members:
            member.deliver(encoded[member.vsn])

    def describe(self) -> dict[str, object]:
        """Return the number of sockets by topic."""
        return {topic: len(members) for topic, members in self._members.items()}
