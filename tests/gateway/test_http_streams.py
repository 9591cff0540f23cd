"""Streams of events whose clients are slow, silent or gone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from infertool.gateway import events
from tests.gateway.front_server import LONG, FrontServer

POST = (
    b"POST /v1/models/default/infer HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
    b'Content-Type: application/json\r\nContent-Length: 6\r\n\r\n"hold"'
)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def flood(server: FrontServer) -> None:
    """Change the position of the only request until its stream is gone."""
    engine = server.engine
    [request_id] = engine.known
    position = 0
    while server.front.streams:
        position += 1
        await engine._change(replace(engine.known[request_id], position=position))
        await asyncio.sleep(0)


def test_a_client_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STUCK_S", 0.3)
    monkeypatch.setattr(events, "_TICK_S", 0.1)
    with FrontServer() as server:
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", server.port))
        line.sendall(POST)
        wait_until(lambda: server.front.streams)
        server.run(flood(server))
        # Its connection is given up as well, with what it has not taken.
        wait_until(lambda: server.front.connections == 0)
        line.close()
        assert not server.engine.left


def test_a_quiet_stream_has_comments_and_a_client_that_leaves_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_S", 0.05)
    monkeypatch.setattr(events, "_TICK_S", 0.02)
    with FrontServer() as server:
        line = server.raw(POST)
        line.settimeout(LONG)
        said = b""
        while said.count(b":\n\n") < 3:
            part = line.recv(65536)
            assert part, said
            said += part
        line.close()
        wait_until(lambda: not server.front.streams)
