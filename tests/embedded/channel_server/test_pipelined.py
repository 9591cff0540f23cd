"""Messages that come in one read: recorded from a real Phoenix 1.8.12 (Bandit 1.11.1), replayed against the hub.

A scene is a list of steps: messages that are sent in one write, and what the server answers before the next step. The
real server had the channel below on `t:*`. Scenes whose order depends on which process runs first are not among them.

    def join("t:refuse", ...), do: {:error, %{reason: "unauthorized"}}; "t:crash" raises; "t:hello" answers its params;
    "t:after" pushes `after`; echo answers; cast broadcasts and answers; out broadcasts on t:other; push pushes
    `pushed`; noreply, stop, stop_reply (%{bye: true}) do so; all else crashes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infertool.embedded.channel_server.channels import OK, Answer, Channel, Definition, RefuseJoin, Reply, Stop
from tests.embedded.channel_server import raw
from tests.embedded.channel_server.peer import Peer
from tests.embedded.channel_server.raw import frame
from tests.embedded.channel_server.running import RunningHub

RECORD = Path(__file__).with_name("pipelined-1.8.12.jsonl")
SCENES = [json.loads(line) for line in RECORD.read_text().split("\n") if line]
V1_NAMES = ("join_ref", "ref", "topic", "event", "payload")
LAST: list[Any] = [None, "the last", "phoenix", "heartbeat", {}]


def join(channel: Channel, params: Any) -> dict[str, Any]:
    if channel.topic == "t:refuse":
        raise RefuseJoin("unauthorized")
    if channel.topic == "t:crash":
        raise RuntimeError
    if channel.topic == "t:after":
        channel.push("after", {})
    return {"you": params} if channel.topic == "t:hello" else {}


def handle(channel: Channel, event: str, payload: Any) -> Answer:
    if event == "cast":
        channel.broadcast(channel.topic, event, payload)
    elif event == "out":
        channel.broadcast("t:other", event, payload)
    elif event == "push":
        channel.push("pushed", payload)
    answers = {"echo": Reply(payload), "cast": OK, "out": None, "push": None, "noreply": None, "stop": Stop()}
    return Stop(Reply({"bye": True})) if event == "stop_reply" else answers[event]


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with RunningHub([Definition("t:*", join, handle)]) as running:
        yield running


def write(peer: Peer, vsn: str, messages: list[Any]) -> None:
    """Send all in one write."""
    for message in messages:
        shaped = dict(zip(V1_NAMES, message, strict=False)) if vsn == "1.0.0" else message
        peer.later(frame(raw.TEXT, json.dumps(shaped).encode()))
    peer.flush()


def read(peer: Peer) -> Any:
    opcode, data = peer.read_frame()
    return f"CLOSE {struct.unpack('!H', data[:2])[0]}" if opcode == raw.CLOSE else json.loads(data)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene['vsn']}-{scene['name']}".replace(" ", "_"))
def test_the_channel_server_answers_as_phoenix_did(hub: RunningHub, scene: Any) -> None:
    peer = Peer(hub.port, vsn=scene["vsn"])
    for step in scene["steps"]:
        write(peer, scene["vsn"], step["write"])
        assert [read(peer) for _ in step["read"]] == step["read"]
        if step["read"] and str(step["read"][-1]).startswith("CLOSE"):
            break
        # Nothing is left over: the next answer is that to a heartbeat.
        write(peer, scene["vsn"], [LAST])
        assert "the last" in json.dumps(read(peer))
    peer.close()


def test_the_recorded_sequences_exist() -> None:
    assert len(SCENES) > 100
