"""Channels as their authors see them: definitions, answers, and the channel a handler is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from infertool.embedded.channel_server.overload import Flow
    from infertool.embedded.channel_server.session import Session


class RefuseJoin(Exception):  # noqa: N818 - it is an answer, not an error
    """Raised by a join handler: `reason` goes to the client as `{"reason": ...}` with the status `error`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a push. `response` is a JSON object, or bytes for a binary reply."""

    response: Any = field(default_factory=dict)
    status: str = "ok"


OK = Reply()
"""`{:reply, :ok, socket}`."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the channel normally, after `reply` if there is one: the client gets `phx_close`."""

    reply: Reply | None = None


Answer: TypeAlias = Reply | Stop | None
"""None is `{:noreply, ...}`."""


class Channel:
    """One topic joined by one socket.

    `join_ref` is what the join said; `reply_ref` is what answers and pushes carry: the ref of a join without join_ref.
    `held` says that an operator has paused it.
    """

    __slots__ = ("alive", "definition", "held", "join_ref", "reply_ref", "session", "topic")

    def __init__(
        self, session: Session, definition: Definition, topic: str, join_ref: object, reply_ref: object
    ) -> None:
        self.session = session
        self.definition = definition
        self.topic = topic
        self.join_ref = join_ref
        self.reply_ref = reply_ref
        self.alive = True
        self.held = False

    @property
    def authorized(self) -> bool:
        """Whether the socket brought the token, or none is needed."""
        return self.session.authorized

    @property
    def flow(self) -> Flow:
        """What pauses publishers."""
        return self.session.hub.flow

    def push(self, event: str, payload: object) -> None:
        """Send an event to this channel's client only."""
        self.session.push(self, event, payload)

    def catch_up(self, event_id: object) -> dict[str, Any]:
        """Send what was broadcast on the topic since that event, behind the join's reply; return the reply."""
        if self.session.vsn != "2.0.0":
            return {}
        missed, complete = self.session.hub.recent.after(self.topic, event_id)
        for packet in missed:
            self.session.deliver(packet)
        return {"missed": len(missed), "complete": complete}

    def broadcast(self, topic: str, event: str, payload: object) -> None:
        """Send an event to everyone on `topic`. Raises `TypeError` unless `payload` is an object or bytes.

        Uncaught, that crashes the channel, as `broadcast!` does.
        """
        self.session.hub.broadcast(topic, event, payload)


JoinHandler: TypeAlias = Callable[[Channel, Any], Any]
"""Takes the channel and the join's payload, returns the reply's response, or raises `RefuseJoin`."""

EventHandler: TypeAlias = Callable[[Channel, str, Any], Answer]
"""Takes the channel, the event and its payload. Whatever it raises crashes the channel (`phx_error`)."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The channel behind the topics that match `pattern`: an exact topic, or a prefix and `*`."""

    pattern: str
    join: JoinHandler
    handle: EventHandler

    def matches(self, topic: str) -> bool:
        """Tell whether `topic` is this channel's."""
        if self.pattern.endswith("*"):
            return topic.startswith(self.pattern[:-1])
        return topic == self.pattern


def find(definitions: Sequence[Definition], topic: str) -> Definition | None:
    """Return the first definition whose pattern matches."""
    return next((definition for definition in definitions if definition.matches(topic)), None)
