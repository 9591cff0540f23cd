"""Who is on which topic, and broadcasts to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infertool.devserver.hub import packets
from infertool.devserver.hub.flow import Flow
from infertool.devserver.hub.recent import Recent
from infertool.secret import Secret

if TYPE_CHECKING:
    from infertool.devserver.hub.channels import Channel, Definition
    from infertool.devserver.hub.session import Session
    from infertool.phoenix.frames import Vsn


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
