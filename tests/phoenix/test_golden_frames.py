"""Every frame a real server or the official client sent decodes, and encodes to an equal frame."""

from __future__ import annotations

import json

import pytest

from infertool.phoenix import frames
from tests.phoenix import golden


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@pytest.mark.parametrize("direction", ["send", "recv"])
def test_text_frames(direction: str, vsn: frames.Vsn) -> None:
    lines = list(golden.frames(direction, "text", vsn))
    assert len(lines) > 100
    for where, line in lines:
        frame = frames.decode_text(line.data, vsn)
        again = frames.encode_text(frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload, vsn)
        assert json.loads(again) == json.loads(line.data), where


@pytest.mark.parametrize("direction", ["send", "recv"])
def test_pushes_with_encoded_payload(direction: str) -> None:
    for where, line in golden.frames(direction, "text", "2.0.0"):
        frame = frames.decode_text(line.data)
        payload = json.dumps(frame.payload).encode()
        again = frames.encode_push(frame.join_ref, frame.ref, frame.topic, frame.event, payload)
        assert json.loads(again) == json.loads(line.data), where


def test_binary_frames_of_clients() -> None:
    seen = 0
    for where, line in golden.frames("send", "binary", "2.0.0"):
        if line.data[:1] != b"\0":
            with pytest.raises(frames.FrameError):
                frames.decode_from_client(line.data)
            continue
        frame = frames.decode_from_client(line.data)
        again = frames.encode_client_push(frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload)
        assert again == line.data, where
        seen += 1
    assert seen >= 15


def test_binary_frames_of_servers() -> None:
    seen = set()
    for where, line in golden.frames("recv", "binary", "2.0.0"):
        frame = frames.decode_from_server(line.data)
        assert _encode_as_server(line.data[0], frame) == line.data, where
        seen.add(line.data[0])
    assert seen == {0, 1, 2}


def _encode_as_server(kind: int, frame: frames.Frame) -> bytes:
    if kind == 0:
        return frames.encode_server_push(frame.join_ref, frame.topic, frame.event, frame.payload)
    if kind == 2:
        return frames.encode_broadcast(frame.topic, frame.event, frame.payload)
    reply = frame.payload
    return frames.encode_reply(frame.join_ref, frame.ref, frame.topic, reply["status"], reply["response"])


MALFORMED_V2 = {"not json", "", "{}", "[]", '"str"', "null"}


def test_malformed_frames() -> None:
    """What closed the real socket with 1011 is a FrameError; what the server let pass decodes unless strict."""
    refused = set()
    for version in golden.VERSIONS:
        lines = golden.transcript(version, "v2_malformed_frames")
        closed = {
            line.conn
            for line in lines
            if line.direction == "recv" and line.kind == "close" and line.data["code"] == 1011
        }
        for line in lines:
            if line.direction != "send" or line.kind != "text":
                continue
            if line.conn in closed:
                refused.add(line.data)
                with pytest.raises(frames.FrameError):
                    frames.decode_text(line.data, strict=False)
            else:
                frames.decode_text(line.data, strict=False)
    assert refused >= MALFORMED_V2
