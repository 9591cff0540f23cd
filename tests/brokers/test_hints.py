"""A port that is not the right one: what is there is named, and what to write instead."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from infertool.errors import UnreachableError
from infertool.net.identify import Kind, identify, kind_of, plain_kind
from tests.brokers.conftest import Connect
from tests.brokers.test_tls import authority as _authority
from tests.brokers.test_tls import server_context
from tests.support.activemq import ActiveMQ
from tests.support.brokers import Server
from tests.support.certificates import Authority
from tests.support.phoenix_fake import raw_server
from tests.support.proxy import Proxy

authority = _authority


@pytest.fixture
def http_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def refusal(connect: Connect, url: str) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        connect(url, connect_timeout_s=120.0)
    return caught.value


def test_tls_to_a_stomp_port_without(server: Server, connect: Connect) -> None:
    """It need not wait for the end of the handshake: that never comes."""
    error = refusal(connect, f"stomp+ssl://127.0.0.1:{server.stomp_port}")
    assert "speaks STOMP without TLS" in error.what
    assert error.advice.endswith(f"stomp://127.0.0.1:{server.stomp_port}")


@pytest.mark.parametrize("wants_certificate", [False, True])
def test_no_tls_to_a_port_with(server: Server, connect: Connect, authority: Authority, wants_certificate: bool) -> None:
    context = server_context(
        authority.issue("server", "127.0.0.1"), client_authority=authority if wants_certificate else None
    )
    with Proxy(server.stomp_port, tls=context) as proxy:
        error = refusal(connect, f"stomp://127.0.0.1:{proxy.port}")
    assert "wants TLS" in error.what
    assert error.advice.endswith(f"stomp+ssl://127.0.0.1:{proxy.port}")


@pytest.mark.parametrize("scheme", ["stomp", "stomp+ssl"])
def test_an_http_server(connect: Connect, http_port: int, scheme: str) -> None:
    assert "an HTTP server, not a STOMP broker" in refusal(connect, f"{scheme}://127.0.0.1:{http_port}").what


@pytest.mark.parametrize("scheme", ["stomp", "stomp+ssl"])
def test_an_http_server_that_says_nothing_for_a_while(connect: Connect, authority: Authority, scheme: str) -> None:
    """It need not wait until the time to connect is over."""
    context = server_context(authority.issue("server", "127.0.0.1"))
    first, over = threading.Lock(), threading.Event()

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) if scheme == "stomp+ssl" else connection as line:
            if first.acquire(blocking=False):
                over.wait()
            line.recv(4096)
            line.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

    with raw_server(answer) as port, pytest.raises(UnreachableError) as caught:
        connect(f"{scheme}://127.0.0.1:{port}", connect_timeout_s=3600.0, tls_ca_file=str(authority.file))
    over.set()
    assert "an HTTP server, not a STOMP broker" in caught.value.what


@pytest.mark.activemq
@pytest.mark.parametrize("scheme", ["stomp", "stomp+ssl"])
def test_the_brokers_openwire_port(activemq: ActiveMQ, connect: Connect, scheme: str) -> None:
    error = refusal(connect, f"{scheme}://127.0.0.1:{activemq.openwire_port}")
    assert "an OpenWire port, which is for JMS clients" in error.what
    assert "61613" in error.advice


def test_a_slow_server_with_tls_is_not_taken_for_one_without(server: Server, authority: Authority) -> None:
    with Proxy(server.stomp_port, tls=server_context(authority.issue("server", "127.0.0.1"))) as proxy:
        assert plain_kind("127.0.0.1", proxy.port) is Kind.UNKNOWN
        assert identify("127.0.0.1", proxy.port) is Kind.TLS


@pytest.mark.parametrize(
    ("first_bytes", "kind"),
    [
        (b"CONNECTED\nversion:1.2", Kind.STOMP), (b"ERROR\nmessage", Kind.STOMP), (b"CONNECTION", Kind.UNKNOWN),
        (b"HTTP/1.1 400", Kind.HTTP), (b"<html>", Kind.HTTP), (b"\x15\x03\x01\0\x02", Kind.TLS),
        (b"\0\0\x01\x40\x01ActiveMQ\0", Kind.OPENWIRE), (b"AMQP\x03\x01\0\0", Kind.AMQP), (b"SSH-2.0-x", Kind.UNKNOWN),
        (b"\x20\x02\0\x05", Kind.MQTT), (b"", Kind.UNKNOWN), (b"220 mail", Kind.UNKNOWN),
    ],
)  # fmt: skip
def test_first_words(first_bytes: bytes, kind: Kind) -> None:
    assert kind_of(first_bytes) is kind


def test_a_server_that_says_nothing_and_a_port_where_nobody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.net.identify._PROBE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert identify("127.0.0.1", port) is Kind.UNKNOWN
    assert identify("127.0.0.1", port) is Kind.UNKNOWN
    assert identify("no-such-host.invalid", 1) is Kind.UNKNOWN
