"""A port that is no Phoenix's: what is there is named, and what to write instead."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import InfertoolError, UnreachableError
from infertool.net.identify import Kind
from infertool.phoenix.dial import Handshake
from infertool.phoenix.socket import PhoenixSocket
from infertool.phoenix.stream import Stream
from infertool.settings.tree import PhoenixSettings
from tests.phoenix.test_tls import server_with
from tests.support import certificates
from tests.support.embedded import EmbeddedBroker
from tests.support.phoenix_fake import fake_phoenix, raw_server, read_request
from tests.support.proxy import Proxy


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.net.identify._PROBE_S", 120.0)


def rejection(url: str, **options: Any) -> InfertoolError:
    """Return the error, for which nobody waits until the time to connect is over."""
    with pytest.raises(UnreachableError) as caught:
        PhoenixSocket(PhoenixSettings(url=url, **{"connect_timeout_s": 3600.0, **options})).connect()
    return caught.value


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_stomp_broker(scheme: str) -> None:
    broker = EmbeddedBroker().start()
    error = rejection(f"{scheme}://127.0.0.1:{broker.stomp_port}/socket/websocket")
    assert "speaks STOMP, not HTTP" in str(error)
    broker.stop()


def test_a_stomp_broker_behind_tls(tmp_path: Path) -> None:
    authority = certificates.authority(tmp_path)
    broker = EmbeddedBroker().start()
    with Proxy(broker.stomp_port, tls=server_with(authority)) as proxy:
        error = rejection(f"wss://127.0.0.1:{proxy.port}/socket/websocket", tls_ca_file=str(authority.file))
    assert "speaks STOMP, not HTTP" in str(error)
    broker.stop()


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "not as a Phoenix socket"),
        (b"220 mail", "not as a Phoenix socket"),
        (b"HTTP", "did not answer within 0.5 s"),
        (b"", "did not answer within 0.5 s"),
        (b"\0\0\x01\x40\x01ActiveMQ\0", "speaks OpenWire, not HTTP"),
        (b"AMQP\x03\x01\0\0", "speaks AMQP, not HTTP"),
    ],
)
def test_a_server_that_speaks_first_and_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, greeting: bytes, words: str, secure: bool
) -> None:
    authority = certificates.authority(tmp_path)
    context = server_with(authority)
    over = threading.Event()

    def greet(connection: socket.socket) -> None:
        line = context.wrap_socket(connection, server_side=True) if secure else connection
        line.sendall(greeting)
        over.wait()

    options: dict[str, Any] = {}
    if "0.5 s" in words:
        monkeypatch.setattr("infertool.net.identify._PROBE_S", 0.1)
        options["connect_timeout_s"] = 0.5
    scheme = "wss" if secure else "ws"
    with raw_server(greet) as port:
        error = rejection(f"{scheme}://127.0.0.1:{port}/socket/websocket", tls_ca_file=str(authority.file), **options)
        over.set()
    assert words in str(error)


@pytest.mark.parametrize("asked", [True, False])
def test_a_slow_phoenix_is_waited_for(asked: bool) -> None:
    ours, theirs = socket.socketpair()
    questions: list[str] = []

    def ask() -> Kind:
        questions.append("what is it?")
        theirs.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        return Kind.UNKNOWN

    if not asked:
        theirs.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
    with ours, theirs:
        handshake = Handshake(Stream(ours, time.monotonic() + 600), ask)
        assert handshake.recv(4) == b"HTTP"
        assert handshake.recv(4) == b"/1.1"
    assert len(questions) == asked


def test_after_a_loss_nothing_else_is_asked() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        Handshake(Stream(ours, time.monotonic() + 0.1), None).recv(1)


@pytest.mark.activemq
@pytest.mark.parametrize("port", ["stomp_port", "openwire_port"])
def test_the_ports_of_an_activemq(activemq: object, port: str) -> None:
    error = rejection(f"ws://127.0.0.1:{getattr(activemq, port)}/socket/websocket")
    assert f"speaks {'STOMP' if port == 'stomp_port' else 'OpenWire'}, not HTTP" in str(error)


def test_ws_to_a_server_with_tls(tmp_path: Path) -> None:
    with fake_phoenix(tls=server_with(certificates.authority(tmp_path))) as fake:
        error = rejection(f"ws://127.0.0.1:{fake.port}/socket/websocket")
    assert error.advice
    assert "wss://" in str(error)


@pytest.mark.parametrize("greeting", [b"", b"\0\0\x01\x40\x01ActiveMQ\0"], ids=["tls", "openwire"])
def test_ws_to_a_server_that_closes_without_an_answer(tmp_path: Path, greeting: bytes) -> None:
    """A server with TLS may send no alert; what another sent is lost if it did not read all of the request."""
    context = server_with(certificates.authority(tmp_path))

    def answer(connection: socket.socket) -> None:
        first = connection.recv(1, socket.MSG_PEEK)
        if first == b"G":
            read_request(connection)
        elif greeting:
            connection.recv(4096)
            connection.sendall(greeting)
        elif first == b"\x16":
            context.wrap_socket(connection, server_side=True)

    with raw_server(answer) as port:
        error = rejection(f"ws://127.0.0.1:{port}/socket/websocket")
    assert (
        "speaks OpenWire, not HTTP" in str(error)
        if greeting
        else f"use wss:// in phoenix.url: wss://127.0.0.1:{port}" in str(error)
    )


def test_ws_to_a_server_with_tls_that_answers_400_without(tmp_path: Path) -> None:
    """nginx, for one."""
    context = server_with(certificates.authority(tmp_path))

    def answer(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) == b"\x16":
            context.wrap_socket(connection, server_side=True)
        else:
            read_request(connection)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with raw_server(answer) as port:
        error = rejection(f"ws://127.0.0.1:{port}/socket/websocket")
    assert f"wss://127.0.0.1:{port}/socket/websocket" in error.advice


def test_ws_to_a_server_that_answers_with_an_alert_of_tls() -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"\x15\x03\x01\x00\x02\x02\x0a")

    with raw_server(answer) as port:
        error = rejection(f"ws://127.0.0.1:{port}/socket/websocket")
    assert f"wss://127.0.0.1:{port}/socket/websocket" in str(error)


def test_wss_to_a_server_without_tls() -> None:
    with fake_phoenix() as fake:
        error = rejection(f"wss://127.0.0.1:{fake.port}/socket/websocket")
    assert "ws://" in str(error)
    assert "firewall" not in str(error)
