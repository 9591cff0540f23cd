"""The Phoenix channel protocol of one socket, without I/O: messages in, packets out through `send`.

Phoenix runs one process for the socket and one for each channel. The socket's process handles everything from one read
before its own mailbox: it answers joins, heartbeats and messages to unjoined topics at once, and forwards pushes and
leaves. The channels' answers follow after that. `Session` keeps this order: `receive` does the work of the socket's
process, `end_batch` that of the channels and the mailbox.

Sources: Phoenix.Socket and Phoenix.Channel.Server of 1.8.12, the transcripts in fixtures/phoenix-golden, and pipelined
sequences compared with Phoenix 1.8.12 (tests/embedded/channel_server/test_pipelined.py).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from infertool.embedded.channel_server import wire
from infertool.embedded.channel_server.channels import (
    OK,
    Answer,
    Channel,
    Definition,
    Hub,
    RefuseJoin,
    Reply,
    Stop,
    find,
)
from infertool.embedded.channel_server.wire import Received
from infertool.phoenix.frames import FrameError, Vsn

_SURROGATES = range(0xD800, 0xE000)
_log = logging.getLogger(__name__)


class Session:
    """The channels joined over one socket. `send` takes finished WebSocket frames, and never blocks."""

    __slots__ = ("_awake", "_channels", "_in_batch", "_mail", "authorized", "hub", "send", "vsn")

    def __init__(self, hub: Hub, vsn: Vsn, send: Callable[[bytes], None], *, authorized: bool) -> None:
        self.hub = hub
        self.vsn = vsn
        self.send = send
        self.authorized = authorized
        self._channels: dict[str, Channel] = {}
        self._in_batch = False
        self._mail: list[bytes] = []
        self._awake: dict[Channel, list[Received]] = {}

    @property
    def joined(self) -> int:
        """The number of joined channels."""
        return len(self._channels)

    def channel(self, topic: str) -> Channel:
        """Return the channel of a joined topic."""
        return self._channels[topic]

    def receive(self, message: Received) -> None:
        """Handle one message of the client; call `end_batch` after the last one of a read.

        Raises `FrameError` for a message that ends the socket.
        """
        self._in_batch = True
        if message.topic == "phoenix" and message.event == "heartbeat":
            self._reply(message._replace(join_ref=None), OK)
            return
        channel = self._channels.get(message.topic) if isinstance(message.topic, str) else None
        if message.event == "phx_join":
            self._join(message, channel)
        elif channel is None:
            self._receive_unjoined(message)
        # A message with the join_ref of an earlier join is dropped.
        elif message.join_ref is None or _same(message.join_ref, channel.join_ref):
            self._awake.setdefault(channel, []).append(message)

    def end_batch(self) -> None:
        """Let the channels handle their messages, and send their answers."""
        self._in_batch = False
        mail, self._mail = self._mail, []
        awake, self._awake = self._awake, {}
        for packet in mail:
            self.send(packet)
        for channel, messages in awake.items():
            for message in messages:
                # Messages after the one that ended the channel are dropped.
                if channel.alive:
                    self._hand_over(channel, message)

    def deliver(self, packet: bytes) -> None:
        """Send a channel's push or broadcast, after the socket's own answers to the current batch."""
        if self._in_batch:
            self._mail.append(packet)
        else:
            self.send(packet)

    def push(self, channel: Channel, event: str, payload: object) -> None:
        """Send a channel's own event to this client."""
        self.deliver(wire.push(self.vsn, channel.reply_ref, channel.topic, event, payload))

    def catch_up(self, topic: str, event_id: object) -> dict[str, Any]:
        """Send the broadcasts on `topic` that followed `event_id`, after the join's reply; return that reply."""
        if self.vsn != "2.0.0":
            return {}
        missed, complete = self.hub.recent.after(topic, event_id)
        for packet in missed:
            self.deliver(packet)
        return {"missed": len(missed), "complete": complete}

    def leave_all(self) -> None:
        """Leave every channel: the socket has closed."""
        for channel in list(self._channels.values()):
            self._forget(channel)

    # The socket's process.

    def _join(self, message: Received, old: Channel | None) -> None:
        if old:
            # Its messages of this batch are dropped.
            self._forget(old)
            self.deliver(self._end_packet(old, "phx_close", {}))
        definition = find(self.hub.definitions, message.topic) if isinstance(message.topic, str) else None
        if definition is None:
            _check_name(message.topic)
            self._reply_unmatched(message)
        elif len(self._channels) >= self.hub.limits.max_channels:
            self._reply(message, _error("too many channels joined"))
        else:
            self._reply(message, self._enter(definition, message))

    def _enter(self, definition: Definition, message: Received) -> Reply:
        reply_ref = message.ref if message.join_ref is None or message.join_ref is False else message.join_ref
        channel = Channel(self, definition, message.topic, message.join_ref, reply_ref)
        try:
            response = definition.join(channel, message.payload)
        except RefuseJoin as refusal:
            return _error(refusal.reason)
        except Exception as error:  # noqa: BLE001 - a crashing channel is part of the protocol
            _log.warning("the join of %.100r crashed: %s", message.topic, type(error).__name__)
            return _error("join crashed")
        self._channels[channel.topic] = channel
        self.hub.enter(channel.topic, self)
        return Reply(response)

    def _receive_unjoined(self, message: Received) -> None:
        if message.event == "phx_leave":
            self._reply(message, OK)
        else:
            self._reply_unmatched(message)

    # The channels' processes.

    def _hand_over(self, channel: Channel, message: Received) -> None:
        # The answer carries the channel's join_ref, even if the message had none.
        message = message._replace(join_ref=channel.reply_ref)
        if message.event == "phx_leave":
            self._reply(message, OK)
            self._end(channel, "phx_close", {})
            return
        try:
            answer = channel.definition.handle(channel, message.event, message.payload)
            self._answer(channel, message, answer)
        except Exception as error:  # noqa: BLE001 - a crashing channel is part of the protocol
            _log.warning("%.100r crashed at %.100r: %s", channel.topic, message.event, type(error).__name__)
            self._end(channel, "phx_error", {"reason": "channel_crash"})

    def _answer(self, channel: Channel, message: Received, answer: Answer) -> None:
        if isinstance(answer, Reply):
            self._reply(message, answer)
        elif isinstance(answer, Stop):
            if answer.reply:
                self._reply(message, answer.reply)
            self._end(channel, "phx_close", {})

    def _end(self, channel: Channel, event: str, payload: object) -> None:
        self._forget(channel)
        self.send(self._end_packet(channel, event, payload))

    def _forget(self, channel: Channel) -> None:
        channel.alive = False
        del self._channels[channel.topic]
        self.hub.leave(channel.topic, self)

    def _reply(self, message: Received, reply: Reply) -> None:
        self.send(wire.reply(self.vsn, message, reply.status, reply.response))

    def _reply_unmatched(self, message: Received) -> None:
        self._reply(message._replace(join_ref=None), _error("unmatched topic"))

    def _end_packet(self, channel: Channel, event: str, payload: object) -> bytes:
        return wire.end(self.vsn, channel.join_ref, channel.topic, event, payload)


def _error(reason: str) -> Reply:
    return Reply({"reason": reason}, status="error")


def _same(one: object, other: object) -> bool:
    """Return True if two JSON values are equal to Elixir's `===`: 1 equals neither 1.0 nor true."""
    if isinstance(one, dict | list):
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    return type(one) is type(other) and one == other


def _check_name(topic: object) -> None:
    """Raise `FrameError` for a topic that Elixir cannot log: it ends the socket of a real server."""
    parts = [topic]
    while parts:
        part = parts.pop()
        if isinstance(part, dict) or (part is not topic and (part is None or isinstance(part, bool | float))):
            raise FrameError("a topic that cannot be written")
        if isinstance(part, int) and part is not topic and not _is_character(part):
            raise FrameError("a topic that cannot be written")
        if isinstance(part, list):
            parts += part


def _is_character(number: int) -> bool:
    return 0 <= number < _SURROGATES.start or _SURROGATES.stop <= number <= sys.maxunicode
