"""A port that is no Phoenix's: what is there is named, and what to write instead."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from infertool.errors import InfertoolError, UnreachableError
from infertool.phoenix.socket import PhoenixSocket
from infertool.settings.tree import PhoenixSettings
from tests.phoenix.test_tls import server_with
from tests.support import certificates
from tests.support.embedded import EmbeddedBroker
from tests.support.phoenix_fake import fake_phoenix, raw_server, read_request


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.identify._PATIENCE_S", 120.0)


def refusal(url: str, **options: float) -> InfertoolError:
    with pytest.raises(UnreachableError) as caught:
        PhoenixSocket(PhoenixSettings(url=url, **options)).connect()  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_stomp_broker(scheme: str) -> None:
    broker = EmbeddedBroker().start()
    error = refusal(f"{scheme}://127.0.0.1:{broker.stomp_port}/socket/websocket", connect_timeout_s=1.0)
    assert "speaks STOMP, not HTTP" in str(error)
    broker.stop()


@pytest.mark.activemq
@pytest.mark.parametrize("port", ["stomp_port", "openwire_port"])
def test_the_ports_of_an_activemq(activemq: object, port: str) -> None:
    error = refusal(f"ws://127.0.0.1:{getattr(activemq, port)}/socket/websocket", connect_timeout_s=1.0)
    assert f"speaks {'STOMP' if port == 'stomp_port' else 'OpenWire'}, not HTTP" in str(error)


def test_ws_to_a_server_with_tls(tmp_path: Path) -> None:
    with fake_phoenix(tls=server_with(certificates.authority(tmp_path))) as fake:
        error = refusal(f"ws://127.0.0.1:{fake.port}/socket/websocket", connect_timeout_s=120.0)
    assert error.advice
    assert "wss://" in str(error)


def test_ws_to_a_server_that_answers_with_an_alert_of_tls() -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"\x15\x03\x01\x00\x02\x02\x0a")

    with raw_server(answer) as port:
        error = refusal(f"ws://127.0.0.1:{port}/socket/websocket", connect_timeout_s=120.0)
    assert f"wss://127.0.0.1:{port}/socket/websocket" in str(error)


def test_wss_to_a_server_without_tls() -> None:
    with fake_phoenix() as fake:
        error = refusal(f"wss://127.0.0.1:{fake.port}/socket/websocket", connect_timeout_s=120.0)
    assert "ws://" in str(error)
    assert "firewall" not in str(error)
