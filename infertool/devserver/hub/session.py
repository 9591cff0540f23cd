"""The channel protocol of one socket, without I/O: messages in, packets out through `send`.

Sources: Phoenix.Socket of 1.8, and the transcripts in fixtures/phoenix-golden.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from infertool.devserver.hub import packets
from infertool.devserver.hub.channels import OK, Answer, Channel, Definition, RefuseJoin, Reply, Stop, find

if TYPE_CHECKING:
    from infertool.devserver.hub.hub import Hub
    from infertool.devserver.hub.packets import Received
    from infertool.phoenix.frames import Vsn

_log = logging.getLogger(__name__)


class Session:
    """The channels joined over one socket. `send` takes finished WebSocket frames and never blocks."""

    __slots__ = ("_channels", "_ended", "authorized", "hub", "send", "vsn")

    def __init__(self, hub: Hub, vsn: Vsn, send: Callable[[bytes], None], *, authorized: bool) -> None:
        self.hub = hub
        self.vsn = vsn
        self.send = send
        self.authorized = authorized
        self._channels: dict[str, Channel] = {}
        self._ended: set[str] = set()

    @property
    def joined(self) -> int:
        """How many channels are joined."""
        return len(self._channels)

    def receive(self, message: Received) -> None:
        """Handle one message of the client. Raises `FrameError` if the answer cannot be written."""
        if message.topic == "phoenix" and message.event == "heartbeat":
            self._reply(message._replace(join_ref=None), OK)
            return
        channel = self._channels.get(message.topic) if isinstance(message.topic, str) else None
        if message.event == "phx_join":
            self._join(message, channel)
        elif channel is None:
            self._receive_unjoined(message)
        # 1.8 drops what carries another join_ref, or none. Vsn 1.0.0 has none on either side.
        elif message.join_ref == channel.join_ref:
            self._receive_joined(channel, message)

    def end_batch(self) -> None:
        """Say that everything which had arrived is handled.

        What was queued behind a message that ended its channel is lost with the channel, as in its mailbox.
        """
        self._ended.clear()

    def push(self, channel: Channel, event: str, payload: object) -> None:
        """Send a channel's own event to this client."""
        self.send(packets.push(self.vsn, channel.join_ref, channel.topic, event, payload))

    def leave_all(self) -> None:
        """Forget every channel; the socket is gone."""
        for channel in list(self._channels.values()):
            self._forget(channel)

    def _join(self, message: Received, old: Channel | None) -> None:
        if old:
            self._forget(old)
        definition = find(self.hub.definitions, message.topic) if isinstance(message.topic, str) else None
        if definition is None:
            self._reply_unmatched(message)
        elif len(self._channels) >= self.hub.limits.max_channels:
            self._reply(message, _error("too many channels joined"))
        else:
            self._reply(message, self._enter(definition, message))
        if old:
            self._send_end(old, "phx_close", {})

    def _enter(self, definition: Definition, message: Received) -> Reply:
        channel = Channel(self, definition, message.topic, message.join_ref)
        try:
            response = definition.join(channel, message.payload)
        except RefuseJoin as refusal:
            return _error(refusal.reason)
        except Exception as error:  # noqa: BLE001 - a crashing channel is part of the protocol
            _log.warning("joining %.100r crashed: %s", message.topic, type(error).__name__)
            return _error("join crashed")
        self._channels[channel.topic] = channel
        self._ended.discard(channel.topic)
        self.hub.enter(channel.topic, self)
        return Reply(response)

    def _receive_unjoined(self, message: Received) -> None:
        if message.event == "phx_leave":
            self._reply(message, OK)
        elif not isinstance(message.topic, str) or message.topic not in self._ended:
            self._reply_unmatched(message)

    def _receive_joined(self, channel: Channel, message: Received) -> None:
        if message.event == "phx_leave":
            self._reply(message, OK)
            self._forget(channel)
            self._send_end(channel, "phx_close", {})
            return
        try:
            self._answer(channel, message, channel.definition.handle(channel, message.event, message.payload))
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
        self._ended.add(channel.topic)
        self._send_end(channel, event, payload)

    def _forget(self, channel: Channel) -> None:
        del self._channels[channel.topic]
        self.hub.leave(channel.topic, self)

    def _reply(self, message: Received, reply: Reply) -> None:
        self.send(packets.reply(self.vsn, message, reply.status, reply.response))

    def _reply_unmatched(self, message: Received) -> None:
        self._reply(message._replace(join_ref=None), _error("unmatched topic"))

    def _send_end(self, channel: Channel, event: str, payload: object) -> None:
        self.send(packets.end(self.vsn, channel.join_ref, channel.topic, event, payload))


def _error(reason: str) -> Reply:
    return Reply({"reason": reason}, status="error")
