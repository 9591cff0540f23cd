"""Follows topics of one Phoenix server, across losses of the connection and of single channels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from infertool.channels.event import ChannelEvent, OnChannelEvents, from_frames
from infertool.net.connection_state import OnConnection
from infertool.phoenix.dial import targets
from infertool.phoenix.frames import Frame
from infertool.phoenix.membership import Loss, Membership
from infertool.phoenix.push import documents
from infertool.phoenix.socket import PhoenixSocket
from infertool.settings.tree import PhoenixSettings


class Inbox:
    """A queue of about `most` events. `put` blocks while it is full, and so does the server."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: list[ChannelEvent] = []
        self._changed = threading.Condition()
        self._closed = False

    def put(self, events: Sequence[ChannelEvent]) -> None:
        """Add a batch once there is room. Drop it after `close`."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            if not self._closed:
                self._waiting += events
                self._changed.notify_all()

    def take(self, timeout_s: float) -> list[ChannelEvent]:
        """Return all queued events; wait up to `timeout_s` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, timeout_s)
            taken, self._waiting = self._waiting, []
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Release all waiting threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._closed or len(self._waiting) < self._most


OnTopic = Callable[[str, str], None]
OnMissed = Callable[[str, int, bool], None]
# Losses that are reported as losses of the connection.
_CONNECTION_LOSSES = {Loss.LINK, Loss.BLAMED, Loss.TOO_LARGE}


def _ignore_topic(_topic: str, _reason: str) -> None:
    """Do nothing: the default of `on_topic`."""


class TopicFeed:
    """Joins `topics`, and passes on the events that are pushed and broadcast on them.

    `on_events(events)` gets the events of one read; while it blocks, nothing is read and the server keeps the rest.
    `on_connection(event)` reports changes of the connection. `on_topic(topic, reason)` reports a topic that is lost
    while the connection is up, and, with an empty reason, that it is joined again. With `on_missed(topic, count,
    complete)` a rejoin sends the last `event_id`; the embedded channel server then sends the broadcasts since that
    event, and `on_missed` reports their number and whether none is missing. All are called from the socket's threads,
    and must not close the feed.
    """

    def __init__(
        self,
        settings: PhoenixSettings,
        topics: Sequence[str],
        *,
        on_events: OnChannelEvents,
        on_connection: OnConnection,
        on_topic: OnTopic = _ignore_topic,
        on_missed: OnMissed | None = None,
        source: str = "",
    ) -> None:
        self._settings = settings
        self._topics = list(dict.fromkeys(topics))
        self._on_events = on_events
        self._on_connection = on_connection
        self._on_topic = on_topic
        self._on_missed = on_missed
        self._source = source
        self._address = targets(settings)[0].address
        self._socket: PhoenixSocket | None = None

    @property
    def address(self) -> str:
        """The address of the current or last connection, without secrets."""
        return self._socket.address if self._socket else self._address

    def connect(self) -> None:
        """Connect, and join all topics. After a loss both are repeated until `close`.

        Raises `UnreachableError`, `RefusedError`, `JoinRefusedError`; it may then be called again.
        """
        self._socket = socket = PhoenixSocket(self._settings, on_connection=self._on_connection)
        socket.connect()
        try:
            for topic in self._topics:
                listener = _Topic(topic, self._hand_over, self._on_topic, self._on_missed, socket.join_payload)
                membership = Membership(socket, topic, listener.join_payload, listener)
                membership.join(self._settings.connect_timeout_s)
        except BaseException:
            socket.close(1.0)
            raise

    def close(self, timeout_s: float) -> None:
        """Close the connection, wait up to `timeout_s` for the server, stop all threads. Not from a callback."""
        if self._socket:
            self._socket.close(timeout_s)

    def _hand_over(self, frames: Sequence[Frame]) -> None:
        if events := from_frames(frames, at=time.time(), source=self._source):
            self._on_events(events)


class _Topic:
    """The listener of one topic's membership. It remembers the last event."""

    def __init__(
        self,
        topic: str,
        hand_over: Callable[[Sequence[Frame]], None],
        on_topic: OnTopic,
        on_missed: OnMissed | None,
        payload: Callable[[], dict[str, Any]],
    ) -> None:
        self._topic = topic
        self._hand_over = hand_over
        self._on_topic = on_topic
        self._on_missed = on_missed
        self._payload = payload
        self._lost = False
        self._last_id: object = None

    def join_payload(self) -> dict[str, Any]:
        """Return the payload of a join; a rejoin contains the last `event_id`."""
        payload = self._payload()
        wanted = self._on_missed is not None and self._last_id is not None
        return {"after": self._last_id, **payload} if wanted else payload

    def on_frames(self, frames: Sequence[Frame]) -> None:
        for frame in reversed(frames):
            if (event_id := _last_id(frame)) is not None:
                self._last_id = event_id
                break
        self._hand_over(frames)

    def on_joined(self, response: Any) -> None:
        if self._lost:
            self._lost = False
            self._on_topic(self._topic, "")
        if self._on_missed and isinstance(response, dict) and isinstance(missed := response.get("missed"), int):
            self._on_missed(self._topic, missed, response.get("complete") is True)

    def on_lost(self, loss: Loss, reason: str) -> None:
        if loss not in _CONNECTION_LOSSES:
            self._lost = True
            self._on_topic(self._topic, f"{loss}: {reason}" if reason else str(loss))


def _last_id(frame: Frame) -> object:
    """Return the event_id of an event, or of the last one in a batch; None if there is none."""
    results = documents(frame)
    last = results[-1] if results else None
    return last.get("event_id") if isinstance(last, dict) else None
