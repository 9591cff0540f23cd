"""What doctor asks over HTTP is bounded, whatever answers."""

from __future__ import annotations

import base64
import contextlib
import socket
import time

import pytest

from infertool.app.doctor.http_get import get
from infertool.errors import UnreachableError
from tests.support.phoenix_fake import raw_server, read_request


def test_the_user_part_of_a_url_is_a_login() -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        asked.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    with raw_server(answer) as port:
        get(f"http://m%E2%82%AC:a%40b@127.0.0.1:{port}", "/", 60, setting="telemetry.metrics", advice="look there")
    login = base64.b64encode("m€:a@b".encode()).decode()
    assert f"authorization: Basic {login}\r\n".encode() in asked[0]


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
