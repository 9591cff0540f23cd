"""Our client in the place of the recorded one: it sends the same frames and understands the same answers."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from infertool.errors import JoinRefusedError
from infertool.phoenix.frames import Frame, Reply, decode_text
from infertool.phoenix.membership import JoinState
from infertool.phoenix.socket import PhoenixSocket
from infertool.secret import Secret
from infertool.settings.tree import PhoenixSettings
from tests.phoenix import golden
from tests.phoenix.golden import Line
from tests.support.channel import Channel
from tests.support.phoenix_replay import replay

# What a conversation may hold that our client never says: it is left out by naming where to stop.
CONVERSATIONS = {
    "v2_join_ok": None,
    "v2_join_ok_with_reply": None,
    "v2_join_refused": "a push to it",
    "v2_join_crash": None,
    "v2_join_unknown_topic": None,
    "v2_push_with_reply": None,
    "v2_push_no_reply": None,
    "v2_broadcast_order_ack": None,
    "v2_channel_unknown_event": None,
    "v2_blocked_channel_heartbeat": None,
    "v2_leave": "a push after it",
    "v2_flow_signal": "POST /ctl/broadcast",
    "v2_server_shutdown_sigterm": "SIGTERM",
    "js_session": None,
    "js_crash_rejoin": None,
    "js_server_disconnect": None,
    "js_auth_token": None,
}


def lines_of(version: str, name: str) -> list[Line]:
    stop = CONVERSATIONS[name]
    lines: list[Line] = []
    for line in golden.transcript(version, name):
        if stop and line.kind == "note" and stop in line.data:
            break
        lines.append(line)
    return lines


def connections_of(lines: Sequence[Line]) -> list[list[Line]]:
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        if line.conn and line.conn != "ctl":
            by_name.setdefault(line.conn, []).append(line)
    return [lines for lines in by_name.values() if any(line.kind == "text" for line in lines)]


CASES = [
    (version, name)
    for version, name in golden.names()
    if name in CONVERSATIONS and connections_of(lines_of(version, name))
]


class Driver:
    """Makes our client do what the recorded one did."""

    def __init__(self, phoenix: PhoenixSocket, lines: Sequence[Line]) -> None:
        self._phoenix = phoenix
        self._sent = [decode_text(line.data) for line in lines if line.direction == "send" and line.kind == "text"]
        received = [decode_text(line.data) for line in lines if line.direction == "recv" and line.kind == "text"]
        self._replies = {frame.ref: frame for frame in received if frame.event == "phx_reply"}
        self._expected = [f for f in received if f.event not in {"phx_reply", "phx_error", "phx_close"}]
        self._messages: queue.Queue[Frame] = queue.Queue()
        self._joins: queue.Queue[tuple[JoinState, str]] = queue.Queue()
        self._channels: dict[str, Channel] = {}
        self._pending: list[tuple[Future[Reply], Frame]] = []

    def run(self) -> None:
        for frame in self._sent:
            self._do(frame)
        self._await_replies()
        got = [self._messages.get(timeout=90) for _ in self._expected]
        assert [(f.topic, f.event, f.payload) for f in got] == [(f.topic, f.event, f.payload) for f in self._expected]

    def _await_replies(self) -> None:
        for future, recorded in self._pending:
            payload = recorded.payload
            assert future.result(90) == Reply(payload["status"], payload["response"])
        self._pending.clear()

    def _do(self, frame: Frame) -> None:
        if frame.event == "phx_join":
            self._join(frame)
        elif frame.event == "phx_leave":
            self._await_replies()
            self._channels[frame.topic].leave()
        elif frame.topic == "phoenix":
            beaten: Future[None] = Future()
            self._phoenix.heartbeat(lambda: beaten.set_result(None))
            beaten.result(90)
        else:
            self._push(frame)

    def _join(self, frame: Frame) -> None:
        if frame.topic in self._channels:
            while self._joins.get(timeout=90)[0] is not JoinState.JOINED:
                pass
            return
        channel = Channel(
            self._phoenix,
            frame.topic,
            frame.payload,
            on_message=self._messages.put,
            on_state=lambda *to: self._joins.put(to),
        )
        recorded: dict[str, Any] = self._replies[frame.ref].payload
        if recorded["status"] == "ok":
            self._channels[frame.topic] = channel
            assert channel.join(90) == recorded["response"]
            assert self._joins.get(timeout=90) == (JoinState.JOINED, "")
            return
        with pytest.raises(JoinRefusedError) as refused:
            channel.join(90)
        assert refused.value.reason == recorded["response"]["reason"]

    def _push(self, frame: Frame) -> None:
        future = self._channels[frame.topic].push(frame.event, frame.payload)
        if frame.ref in self._replies:
            self._pending.append((future, self._replies[frame.ref]))


@pytest.mark.parametrize(("version", "name"), CASES)
def test_conversation(version: str, name: str) -> None:
    lines = lines_of(version, name)
    connections = connections_of(lines)
    with replay(connections) as played:
        query = next(line.data["path"] for line in lines if line.kind == "http").partition("?")[2]
        in_protocol = name == "js_auth_token"
        settings = PhoenixSettings(
            url=f"ws://127.0.0.1:{played.port}/socket/websocket?{query}",
            token=Secret("supersecret" if in_protocol else ""),
            token_in="protocol" if in_protocol else "params",
        )
        phoenix = PhoenixSocket(settings)
        phoenix.connect()
        try:
            Driver(phoenix, lines).run()
        finally:
            phoenix.close(5)
        for _ in connections:
            assert played.outcomes.get(timeout=90) is None
