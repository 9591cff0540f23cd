"""The real servers that tests start: each keeps what it confirmed, and is gone when it was removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.activemq6 import ActiveMQ6
from tests.support.artemis import Artemis
from tests.support.brokers import TIMEOUT_S
from tests.support.rabbitmq import RabbitMQ
from tests.support.serverprocess import ServerProcess

KINDS = [
    pytest.param(Artemis, marks=pytest.mark.artemis),
    pytest.param(ActiveMQ6, marks=pytest.mark.activemq6),
    pytest.param(RabbitMQ, marks=pytest.mark.rabbitmq),
]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    server = request.param(tmp_path / "server")
    yield server
    server.remove()


@pytest.mark.long
def test_messages_survive_a_kill(server: ServerProcess) -> None:
    raw = server.start().raw()
    raw.confirm_each = True  # a kill may lose a message without a receipt of its own
    raw.send("/queue/kept", [({"number": str(number)}, b"body") for number in range(10)])
    raw.close()
    server.kill()
    assert not server.is_running()
    raw = server.start().raw()
    kept: list[tuple[dict[str, str], bytes]] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(kept) < 10 and time.monotonic() < deadline:
        kept += raw.drain("/queue/kept")
    assert [headers["number"] for headers, _ in kept] == [str(number) for number in range(10)]
    raw.close()
    server.remove()
    assert str(server.base) not in " ".join(map(_command, psutil.process_iter()))
    if isinstance(server, RabbitMQ):
        assert server.epmds() == []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    class Broken(ServerProcess):
        def configure(self) -> None:
            pass

        def command(self) -> list[str]:
            return ["sh", "-c", "echo no such option; exit 1"]

    with pytest.raises(RuntimeError, match="no such option"):
        Broken(tmp_path / "server").start()
