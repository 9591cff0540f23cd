"""What doctor asks over HTTP is bounded, whatever answers."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from infertool.app.doctor.http_get import get
from infertool.errors import UnreachableError
from tests.support.phoenix_fake import raw_server, read_request


def test_an_answer_that_trickles_ends_at_the_time_limit() -> None:
    def trickle(connection: socket.socket) -> None:
        read_request(connection)
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)

    with (
        raw_server(trickle) as port,
        pytest.raises(UnreachableError, match="timed out; look there"),
    ):
        get(f"http://127.0.0.1:{port}", "/", 1, setting="telemetry.metrics", advice="look there")
