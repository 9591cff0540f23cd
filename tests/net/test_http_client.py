"""The HTTP client of submit, loadgen and webhooks."""

from __future__ import annotations

import asyncio
import socket

import pytest

from infertool.net.http_client import ExchangeError, Target, connect
from tests.support.deaf import deaf
from tests.support.ports import free_port


def resolved_to(*addresses: str) -> object:
    def getaddrinfo(_host: str, port: int, *_arguments: object, **_options: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo


def test_an_address_that_never_answers_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolved_to("127.0.0.2", "127.0.0.1"))

    async def run() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with deaf("127.0.0.2", port):
            async with asyncio.timeout(60):
                connection = await connect(Target("http", "two.example", port, "/"), max_body=0)
        connection.abort()
        server.close()

    asyncio.run(run())


def test_the_last_address_says_why_none_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolved_to("127.0.0.2", "127.0.0.1"))
    target = Target("http", "two.example", free_port(), "/")
    with pytest.raises(ExchangeError, match=r"http://two\.example:.* cannot be reached: .*127\.0\.0\.1") as caught:
        asyncio.run(connect(target, max_body=0))
    assert not caught.value.connected
