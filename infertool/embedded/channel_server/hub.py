"""Who is on which topic, and broadcasts to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infertool.embedded.channel_server import packets
from infertool.embedded.channel_server.overload import Flow
from infertool.secret import Secret

if TYPE_CHECKING:
    from infertool.embedded.channel_server.channels import Channel, Definition
    from infertool.embedded.channel_server.session import Session
    from infertool.phoenix.frames import Vsn


_PUBLIC = "public:"
_MOST = 1_000
_MOST_BYTES = 8_388_608


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
    """The last thousand broadcasts of each public topic, or 8 MiB of them."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    @staticmethod
    def keeps(topic: str) -> bool:
        """Return True if what is broadcast on `topic` is remembered."""
        return topic.startswith(_PUBLIC)

    def note(self, topic: str, payload: object, packet: bytes) -> None:
        """Remember a broadcast."""
        if topic not in self._topics:
            self._topics[topic] = _Topic()
        self._topics[topic].add(_last_id(payload), packet)

    def after(self, topic: str, event_id: object) -> tuple[list[bytes], bool]:
        """Return the packets behind that of the event; all there are, and False, if it is not known (any more)."""
        kept = list(self._topics[topic].kept) if topic in self._topics else []
        for place in range(len(kept) - 1, -1, -1):
            if kept[place][0] == event_id:
                return [packet for _, packet in kept[place + 1 :]], True
        return [packet for _, packet in kept], False


def _last_id(payload: object) -> object:
    """Return the event_id of a broadcast, or of the last result of a batch."""
    if not isinstance(payload, dict):
        return None
    results = payload.get("results")
    last = results[-1] if isinstance(results, list) and results else payload
    return last.get("event_id") if isinstance(last, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a socket. The defaults are Phoenix 1.8's, where it has one."""

    idle_s: float = 60.0
    """Longest time a client may be silent."""
    request_s: float = 10.0
    """Longest time from the connection to the end of its request, however slowly that comes in."""
    max_frame_bytes: int = 10_000_000
    max_channels: int = 100
    max_unsent_bytes: int = 8_388_608
    """A socket that reads so slowly that more waits for it is dropped, so that it holds up nobody else.
    Phoenix queues without bound."""
    viewer_messages: int = 2_000
    """The same, in messages."""
    send_timeout_s: float = 30.0
    """A socket that waits to be read and is not for this time is dropped."""
    all_messages: int = 10_000
    """When more messages wait for all sockets together, publishers are paused, until half of them are read."""
    all_bytes: int = 67_108_864
    """The same, in bytes."""


@dataclass(slots=True)
class Hub:
    """The channels, their members, and what a socket must bring. One event loop owns it."""

    definitions: Sequence[Definition]
    token: Secret = field(default_factory=Secret)
    """Empty: anyone may join anything."""
    limits: Limits = field(default_factory=Limits)
    flow: Flow = field(init=False)
    recent: Recent = field(default_factory=Recent)
    _members: dict[str, set[Session]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.flow = Flow(self)

    def enter(self, topic: str, session: Session) -> None:
        """Make the socket a member."""
        self._members.setdefault(topic, set()).add(session)

    def leave(self, topic: str, session: Session) -> None:
        """Undo `enter`."""
        members = self._members[topic]
        members.discard(session)
        if not members:
            del self._members[topic]

    def channels(self, name: str, *, prefix: bool = False) -> list[Channel]:
        """Return the channels of a topic, or of all topics that begin so."""
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
        """Return how many sockets are on each topic."""
        return {topic: len(members) for topic, members in self._members.items()}
