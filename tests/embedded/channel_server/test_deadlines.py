"""A client that never completes its request does not keep its connection, and blocks no other client."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import pytest

from infertool.embedded.channel_server import server
from infertool.embedded.channel_server.channels import Limits
from tests.embedded.channel_server.peer import Peer
from tests.embedded.channel_server.raw import RawClient
from tests.embedded.channel_server.running import RunningHub

BEGINNINGS = {
    "nothing": b"",
    "half a line": b"GET /health HT",
    "half a head": b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: a\r\nX-A",
    "no end of the head": b"GET / HTTP/1.1\r\nHost: a\r\n",
}


def ended(connection: socket.socket) -> bool:
    """Return True if the server has closed the connection, after any output."""
    connection.setblocking(False)
    try:
        while data := connection.recv(4096):
            assert data.startswith(b"HTTP/1.1 408 ")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_half_requests_are_ended_however_slowly_they_go_on(beginning: Any) -> None:
    with RunningHub(server.definitions(), limits=Limits(request_s=0.5)) as hub:
        half = [socket.create_connection(("127.0.0.1", hub.port)) for _ in range(100)]
        for connection in half:
            connection.sendall(beginning)
        peer = Peer(hub.port)
        peer.join("public:results")
        deadline = time.monotonic() + 240
        while open_ones := [connection for connection in half if not ended(connection)]:
            assert time.monotonic() < deadline, f"{len(open_ones)} are still open"
            for connection in open_ones:
                _drip(connection, beginning)
            time.sleep(0.05)
        # Others come in and go on meanwhile, also past that time.
        peer.join("public:alerts", "2")
        assert RawClient(hub.port).open("/socket/websocket", port=hub.port)
        peer.close()
        for connection in half:
            connection.close()


def _drip(connection: socket.socket, beginning: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"x" if beginning else b"")
