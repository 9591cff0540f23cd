"""What a user meets when the broker cannot be used: the reason, the address, the next step, never the password."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from infertool import brokers
from infertool.errors import RefusedError, ServerError, UnreachableError
from infertool.net.connection_state import ConnectionState
from infertool.secret import Secret
from tests.brokers.conftest import Connect
from tests.support.activemq import ActiveMQ
from tests.support.brokers import Links, Server, new_queue, numbered, send_all, settings, take
from tests.support.ports import free_port
from tests.support.scripted import Line

HIDDEN = "hunter2-hidden"


@pytest.fixture
def http_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return a socket that accepts; what is behind it says nothing when asked what it is."""
    monkeypatch.setattr("infertool.net.identify._PROBE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


E = TypeVar("E", bound=ServerError)


def refusal(connect: Connect, url: str, error: type[E], **changes: Any) -> E:
    with pytest.raises(error) as caught:
        connect(url, user="someone", password=Secret(HIDDEN), **changes)
    assert HIDDEN not in str(caught.value)
    assert HIDDEN not in repr(caught.value)
    return caught.value


@pytest.mark.activemq
def test_a_wrong_password(activemq: ActiveMQ, connect: Connect) -> None:
    error = refusal(connect, activemq.url, RefusedError)
    assert error.reason == "User name [someone] or password is invalid."
    assert error.address == activemq.url
    assert "broker.password" in error.advice


def test_a_port_where_nothing_listens(connect: Connect) -> None:
    error = refusal(connect, f"stomp://localhost:{free_port()}", UnreachableError)
    assert "nothing listens" in error.what
    assert "infertool dev" in error.advice


def test_an_unknown_host(connect: Connect) -> None:
    error = refusal(connect, "stomp://no-such-host.invalid", UnreachableError)
    assert "'no-such-host.invalid'" in error.what
    assert "unknown" in error.what


def test_a_host_name_that_is_none(connect: Connect) -> None:
    assert "unknown" in refusal(connect, "stomp://a..b", UnreachableError).what


def test_an_http_server(connect: Connect, http_port: int) -> None:
    assert (
        "an HTTP server, not a STOMP broker"
        in refusal(connect, f"stomp://127.0.0.1:{http_port}", UnreachableError).what
    )


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "HTTP server"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not a STOMP broker: it sent b'SSH-2.0-OpenSSH_'"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "wants TLS"),
        (b"CONNECTED\nversion:1.0\n\n\0", "speaks STOMP 1.0, and 1.2 is needed"),
        (b"CONNECTED\nversion:1.2\nheart-beat:a,b\n\n\0", "ended the handshake"),
        (b"", "closed the connection"),
    ],
)
def test_something_else_than_a_broker(connect: Connect, listener: socket.socket, greeting: bytes, words: str) -> None:
    def greet() -> None:
        line, _ = listener.accept()
        with line:
            line.recv(4096)
            line.sendall(greeting)

    greeter = threading.Thread(target=greet)
    greeter.start()
    assert words in refusal(connect, f"stomp://127.0.0.1:{listener.getsockname()[1]}", UnreachableError).what
    greeter.join()


def test_an_error_that_repeats_the_password_is_masked(connect: Connect, listener: socket.socket) -> None:
    def refuse() -> None:
        line, _ = listener.accept()
        with line:
            login = line.recv(4096).replace(b"\n", b" ").replace(b":", rb"\c").rstrip(b"\0")
            line.sendall(b"ERROR\nmessage:cannot read " + login + rb"\nat org.example.Stack" + b"\n\nstack\0")

    greeter = threading.Thread(target=refuse)
    greeter.start()
    error = refusal(connect, f"stomp://127.0.0.1:{listener.getsockname()[1]}", RefusedError)
    greeter.join()
    assert "passcode:********" in error.reason
    assert "Stack" not in str(error)


def test_a_server_that_never_answers(connect: Connect, listener: socket.socket) -> None:
    error = refusal(connect, f"stomp://127.0.0.1:{listener.getsockname()[1]}", UnreachableError, connect_timeout_s=0.3)
    assert "did not answer CONNECT within 0.3 s" in error.what


def test_closing_ends_an_attempt_that_hangs(listener: socket.socket) -> None:
    broker = brokers.open(settings(f"stomp://127.0.0.1:{listener.getsockname()[1]}", connect_timeout_s=60.0))
    failed = threading.Event()

    def connect() -> None:
        with pytest.raises(UnreachableError):
            broker.connect()
        failed.set()

    threading.Thread(target=connect).start()
    line, _ = listener.accept()
    with line:
        line.recv(4096)
        broker.close(1)
        assert failed.wait(20)


def test_the_next_host_is_tried(server: Server, connect: Connect, links: Links) -> None:
    dead = free_port()
    broker = connect(f"stomp://127.0.0.1:{dead},127.0.0.1:{server.stomp_port}", links)
    assert broker.address == server.url
    assert [event.address for event in links.of(ConnectionState.CONNECTING)] == [
        f"stomp://127.0.0.1:{dead}",
        server.url,
    ]
    send_all(broker, numbered(new_queue(), 1))


def test_when_no_host_works_each_is_named(connect: Connect) -> None:
    ports = free_port(), free_port()
    error = refusal(connect, f"stomp://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}", UnreachableError)
    assert all(f"nothing listens at stomp://127.0.0.1:{port}" in error.what for port in ports)


@pytest.mark.activemq
def test_the_urls_login_goes_before_the_settings(activemq: ActiveMQ, connect: Connect) -> None:
    broker = connect(f"stomp://admin:admin@127.0.0.1:{activemq.stomp_port}", user="nobody", password=Secret(HIDDEN))
    assert broker.address == activemq.url
    assert "admin" not in repr(broker)


@pytest.mark.activemq
def test_nothing_secret_is_logged_at_debug(activemq: ActiveMQ, caplog: pytest.LogCaptureFixture, links: Links) -> None:
    caplog.set_level(0)
    caplog.set_level(0, logger="stomp.py")
    broker = brokers.open(settings(activemq.url, user="someone", password=Secret(HIDDEN)), on_connection=links)
    with pytest.raises(RefusedError):
        broker.connect()
    broker.close(1)
    assert HIDDEN not in caplog.text
    assert HIDDEN not in repr(links.events)


def test_heartbeats_keep_a_quiet_connection(server: Server, connect: Connect) -> None:
    """A broker drops a client that is silent for 3 to 4.5 times what it promised. A busy machine may be so."""
    assert any(is_kept(server, connect, heartbeat_s) for heartbeat_s in (1.0, 4.0, 16.0))


def is_kept(server: Server, connect: Connect, heartbeat_s: float) -> bool:
    """Return True if a connection with such heartbeats outlives a silence of five of them."""
    links = Links()
    queue, broker = new_queue(), connect(server.url, links, heartbeat_s=heartbeat_s)
    subscription = broker.subscribe(queue, window=5)
    began = time.monotonic()
    while time.monotonic() < began + 5 * heartbeat_s:
        assert subscription.receive(1, 0.5) == []
    send_all(broker, numbered(queue, 1))
    assert len(take(subscription, 1)) == 1
    return links.of(ConnectionState.LOST) == []


@pytest.mark.parametrize("answer", [b"", b"ERROR\nmessage:no\n\n\0", None])
@pytest.mark.parametrize("use", ["measure", "browse"])
def test_what_answers_is_asked_for_the_first_connection_only(connect: Connect, answer: bytes | None, use: str) -> None:
    """A connection beside it that is closed, refused or left without an answer leads to no other."""
    heads: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        kept = []
        with contextlib.suppress(OSError):
            while True:
                line, _ = listener.accept()
                kept.append(line)
                heads.append(line.recv(65536))
                if len(heads) == 1:
                    line.sendall(b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0")
                elif answer is not None:
                    line.sendall(answer)
                    line.shutdown(socket.SHUT_RDWR)
        for line in kept:
            line.close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        broker = connect(f"stomp://127.0.0.1:{listener.getsockname()[1]}")
        if use == "measure":
            assert broker.measure("/queue/q", 1.0) is None
        else:
            with pytest.raises((UnreachableError, RefusedError)):
                broker.browse("/queue/q", limit=1, timeout_s=1.0)
    finally:
        broker.close(0.1)
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
        listener.close()
    assert len(heads) == 2, heads
    assert f"-{'statistics' if use == 'measure' else 'browse'}-".encode() in heads[1]


@pytest.mark.parametrize("use", ["measure", "browse", "oldest_sent_ms"])
def test_a_connection_beside_the_first_that_cannot_be_made_is_tried_anew_each_time(connect: Connect, use: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            listener.close()
            with accepted:
                line = Line(accepted)
                line.connected()
                line.receipt("DISCONNECT")

        server = threading.Thread(target=serve)
        server.start()
        broker: Any = connect(f"stomp://127.0.0.1:{listener.getsockname()[1]}")
        for _ in range(3):
            if use == "browse":
                with pytest.raises(UnreachableError):
                    broker.browse("/queue/q", limit=1, timeout_s=5.0)
            else:
                assert getattr(broker, use)("/queue/q", 5.0) is None
        broker.close(5.0)
        server.join()
