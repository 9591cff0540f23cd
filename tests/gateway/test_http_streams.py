"""Streams of events whose clients are slow, silent or gone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from infertool.gateway import events
from infertool.gateway import server as gateway_server
from infertool.gateway.request import Accepted, InferRequest
from tests.gateway.front_server import LONG, FrontServer, read_all

POST = (
    b"POST /v1/models/default/infer HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
    b'Content-Type: application/json\r\nContent-Length: 6\r\n\r\n"hold"'
)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def unread(server: FrontServer, data: bytes) -> socket.socket:
    """Send `data` from a client that has little room for what it does not read."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", server.port))
    line.sendall(data)
    return line


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
    monkeypatch.setattr(gateway_server, "STUCK_S", 1.0)
    with FrontServer() as server:
        line = unread(server, POST)
        wait_until(lambda: server.front.streams)
        server.run(flood(server))
        # Its connection is given up as well, with what it has not taken.
        wait_until(lambda: server.front.connections == 0)
        line.close()
        assert not server.engine.left


@pytest.mark.parametrize("accept", [b"", b"Accept: text/event-stream\r\n"])
def test_a_large_answer_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch, accept: bytes) -> None:
    """Its bytes would stay for ever, also where its connection is closed."""
    monkeypatch.setattr(gateway_server, "STUCK_S", 1.0)
    body = b'"%b"' % (b"x" * 8_000_000)
    head = POST.partition(b"Accept")[0] + accept + b"Content-Type: application/json\r\n"
    with FrontServer() as server:
        line = unread(server, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: server.engine.known)
        wait_until(lambda: server.front.connections == 0)
        line.close()


def read_comments(line: socket.socket) -> None:
    """Read a stream up to its third comment."""
    line.settimeout(LONG)
    said = b""
    while said.count(b":\n\n") < 3:
        part = line.recv(65536)
        assert part, said
        said += part


def test_a_full_stream_does_not_keep_comments_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_S", 0.05)
    monkeypatch.setattr(events, "_TICK_S", 0.02)

    async def fill(server: FrontServer, request_id: str) -> None:
        """Have events until no more can be written, and nothing waits to be."""
        [connection] = server.front._guard.open
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        position = 0
        while not connection.flow.write_paused:
            position += 1
            await server.engine._change(replace(server.engine.known[request_id], position=position))
            # The stream has written it by then.
            await asyncio.sleep(0.002)

    with FrontServer() as server:
        full = unread(server, POST)
        wait_until(lambda: server.engine.known)
        server.run(fill(server, next(iter(server.engine.known))))
        other = server.raw(POST)
        read_comments(other)
        other.close()
        full.close()


def test_a_quiet_stream_has_comments_and_a_client_that_leaves_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_S", 0.05)
    monkeypatch.setattr(events, "_TICK_S", 0.02)
    with FrontServer() as server:
        line = server.raw(POST)
        read_comments(line)
        line.close()
        wait_until(lambda: not server.front.streams)


def test_a_client_that_comes_back_to_a_gateway_that_stops_is_told_so() -> None:
    with FrontServer() as server:
        server.raw(POST).close()
        wait_until(lambda: server.engine.known)
        server.front._routes.streams.end()
        path = f"/v1/requests/{next(iter(server.engine.known))}/events".encode()
        told = read_all(server.raw(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path))
    assert b"event: reconnect" in told
    assert told.endswith(b"0\r\n\r\n")


def test_a_client_that_left_before_its_stream_began_has_none() -> None:
    with FrontServer() as server:
        submit = server.engine.submit

        async def submit_late(request: InferRequest, **_: Any) -> Accepted:
            while server.front.connections:  # noqa: ASYNC110  (another thread's client)
                await asyncio.sleep(0.01)
            return await submit(request)

        server.engine.submit = submit_late  # type: ignore[method-assign]
        server.raw(POST).close()
        wait_until(lambda: server.engine.known)
        wait_until(lambda: server.counts.hung_up)
        assert not server.front.streams
        # Nobody can ask for it.
        assert server.engine.left == list(server.engine.known)


def test_the_head_of_a_stream_is_all_that_head_asks_for() -> None:
    """Its request is not done, and the answer ends nevertheless."""
    with FrontServer() as server:
        server.raw(POST).close()
        wait_until(lambda: server.engine.known and not server.front.streams)
        path = f"/v1/requests/{next(iter(server.engine.known))}/events".encode()
        told = read_all(server.raw(b"HEAD %b HTTP/1.1\r\nHost: x\r\n\r\n" % path))
    assert told.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ncontent-type: text/event-stream\r\n" in told
    assert told.endswith(b"\r\n\r\n")
    assert b"event:" not in told
