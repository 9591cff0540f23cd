"""Replays a transcript of a real Phoenix against a channel server: sends the client's frames, expects the server's."""

from __future__ import annotations

import base64
import json
import struct
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.embedded.channel_server import raw
from tests.embedded.channel_server.raw import RawClient, frame, upgrade_request
from tests.embedded.channel_server.running import RunningHub

FOLDER = Path(__file__).parents[3] / "fixtures" / "phoenix-golden"
OPCODES = {"text": raw.TEXT, "binary": raw.BINARY, "ping": raw.PING, "pong": raw.PONG, "cont": raw.CONT}
NAMES = {opcode: name for name, opcode in OPCODES.items()} | {raw.CLOSE: "close"}
# The recorded server had a socket a variant; here it is a hub a variant, at the one path.
VARIANTS = ("/socket/websocket", "/auth/websocket", "/fast/websocket", "/origin/websocket", "/limited/websocket")


def load(version: str, name: str) -> list[dict[str, Any]]:
    lines = (FOLDER / version / f"{name}.jsonl").read_text().split("\n")  # splitlines splits at U+2028, too
    return [json.loads(line) for line in lines if line]


class Replay:
    """One run. `time_scale` is None to send as fast as possible, else recorded times are kept, scaled."""

    def __init__(self, hub: RunningHub, *, time_scale: float | None = None) -> None:
        self._hub = hub
        self._clients: dict[str, RawClient] = {}
        self._time_scale = time_scale
        self._started = time.monotonic()

    def run(self, steps: list[dict[str, Any]]) -> None:
        try:
            for step in steps:
                self._wait_for(step["t"])
                self._do(step)
        finally:
            for client in self._clients.values():
                client.close()

    def _wait_for(self, recorded_t: float) -> None:
        if self._time_scale is not None:
            due = self._started + recorded_t * self._time_scale
            time.sleep(max(0.0, due - time.monotonic()))

    def _do(self, step: dict[str, Any]) -> None:
        if step["dir"] == "recv":
            self._flush()
            self._expect(step)
        elif step["conn"] == "ctl":
            self._control(step["data"])
        elif step["dir"] == "send":
            self._send(step)
        elif step["data"] == "SIGTERM":
            self._flush()
            self._hub.stop()

    def _flush(self) -> None:
        for client in self._clients.values():
            client.flush()

    def _control(self, request: dict[str, Any]) -> None:
        self._flush()
        params = parse_qs(urlsplit(request["path"]).query)
        self._hub.broadcast(params["topic"][0], params["event"][0], json.loads(request["body"]))

    def _send(self, step: dict[str, Any]) -> None:
        if step["type"] == "http":
            self._clients[step["conn"]] = client = RawClient(self._hub.port)
            client.later(self._request(step["data"]))
        else:
            client = self._clients[step["conn"]]
            client.later(_frame_of(step))
        if self._time_scale is not None:
            client.flush()

    def _request(self, recorded: dict[str, Any]) -> bytes:
        if "raw" in recorded:
            raw: str = recorded["raw"]
            return raw.encode()
        path = recorded["path"]
        for variant in VARIANTS:
            path = path.replace(variant, "/socket/websocket")
        # websocket-client's own Origin was that of the recorded server's address.
        headers = {name: value for name, value in recorded["headers"].items() if not _is_own(name, value)}
        return upgrade_request(path, headers, self._hub.port)

    def _expect(self, step: dict[str, Any]) -> None:
        client = self._clients[step["conn"]]
        if step["type"] == "http":
            self._expect_http(client, step["data"])
            return
        opcode, data = client.read_frame()
        assert _describe(NAMES[opcode], data) == _recorded(step)

    def _expect_http(self, client: RawClient, recorded: dict[str, Any]) -> None:
        answer = client.read_http()
        if "raw" in recorded:
            assert answer.status == int(recorded["raw"].split()[1])
            return
        assert answer.status == recorded["status"]
        if answer.status == 101:
            assert answer.headers["sec-websocket-accept"] == raw.ACCEPT
            offered = recorded["headers"].get("sec-websocket-protocol")
            assert answer.headers.get("sec-websocket-protocol") == offered
        elif recorded.get("body") is not None:
            assert answer.body.decode() == recorded["body"]


def _is_own(name: str, value: str) -> bool:
    return (name, value) == ("Origin", "http://127.0.0.1:4000")


def _frame_of(step: dict[str, Any]) -> bytes:
    if step["type"] == "close":
        code = step["data"]["code"]
        return frame(raw.CLOSE, b"" if code is None else struct.pack("!H", code) + b"bye")
    return frame(
        OPCODES[step["type"]],
        _data_of(step),
        fin=bool(step.get("fin", 1)),
        masked=step["data"] != "an unmasked text frame",
        rsv1=step["data"] == "RSV1 set with no extension",
    )


def _data_of(step: dict[str, Any]) -> bytes:
    data: str = step["data"]
    if step["type"] == "binary" or step.get("encoding") == "base64":
        return base64.b64decode(data)
    if "bytes" in step:  # recorded as `...xxx...`, cut
        head, size = data.removesuffix("...").encode(), int(step["bytes"])
        return head + b"x" * (size - len(head) - 3) + b'"}]'
    return data.encode()


def _describe(kind: str, data: bytes) -> tuple[str, object]:
    if kind == "close":
        code = struct.unpack("!H", data[:2])[0] if data else None
        return kind, (code, data[2:].decode())
    return kind, json.loads(data) if kind == "text" else data


def _recorded(step: dict[str, Any]) -> tuple[str, object]:
    kind, data = step["type"], step["data"]
    if kind == "close":
        return kind, (data["code"], data["reason"])
    return kind, json.loads(data) if kind == "text" else base64.b64decode(data)
