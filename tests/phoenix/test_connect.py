"""Everything that can answer at a URL, or not, is told apart; and the token is never shown."""

from __future__ import annotations

import logging
import socket
import threading

import pytest
import websocket

from infertool.errors import InfertoolError, RefusedError, SettingsError, UnreachableError
from infertool.phoenix.socket import PhoenixSocket
from infertool.secret import Secret
from infertool.settings.tree import PhoenixSettings
from tests.support.deaf import deaf
from tests.support.phoenix_fake import fake_phoenix, raw_server, read_request
from tests.support.ports import free_port

TOKEN = "tok/en+very secret"


def settings_for(port: int, **options: object) -> PhoenixSettings:
    given = {"url": f"ws://127.0.0.1:{port}/socket/websocket", "token": Secret(TOKEN), "connect_timeout_s": 60.0}
    return PhoenixSettings(**(given | options))  # type: ignore[arg-type]  # keyword names are the test's


def connect_error(settings: PhoenixSettings) -> InfertoolError:
    with pytest.raises(InfertoolError) as caught:
        PhoenixSocket(settings).connect()
    error = caught.value
    for secret in (TOKEN, "tok%2Fen", "dG9r"):
        assert secret not in str(error)
        assert secret not in repr(error)
        assert secret not in repr(error.__context__)
    return error


def answer_with(response: bytes) -> InfertoolError:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(response)

    with raw_server(handle) as port:
        return connect_error(settings_for(port))


@pytest.mark.parametrize("status", [401, 403])
def test_refused(status: int) -> None:
    error = answer_with(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % status)
    assert isinstance(error, RefusedError)
    assert str(status) in str(error)
    for what in ("token", "origin", "version"):
        assert what in error.advice


def test_body_is_not_shown() -> None:
    body = f"you sent {TOKEN}".encode()
    error = answer_with(b"HTTP/1.1 403 No\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    assert isinstance(error, RefusedError)


def test_failed_connect() -> None:
    error = answer_with(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")
    assert isinstance(error, RefusedError)
    assert "log" in error.advice


def test_no_socket_at_the_path() -> None:
    error = answer_with(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
    assert isinstance(error, UnreachableError)
    assert "no socket at" in error.what
    assert "/socket/websocket" in error.advice


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nset-cookie: a@b=c\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n",
        b"\r\n\r\n",
        b"220 smtp ready\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"\xff\xfe\x00\n\n",
        b"",
    ],
)
def test_not_phoenix(response: bytes) -> None:
    error = answer_with(response)
    assert isinstance(error, UnreachableError)
    assert "not as a Phoenix socket" in error.what


def test_a_redirect_is_not_followed() -> None:
    followed = threading.Event()
    with raw_server(lambda _: followed.set()) as elsewhere:
        answer_with(b"HTTP/1.1 302 Found\r\nlocation: ws://127.0.0.1:%d/\r\n\r\n" % elsewhere)
    assert not followed.is_set()


def test_nothing_listens() -> None:
    error = connect_error(settings_for(free_port()))
    assert isinstance(error, UnreachableError)
    assert "infertool dev" in error.advice


def test_an_address_that_never_answers_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of IPv6 does in a network whose way out drops it."""
    with fake_phoenix() as fake, deaf("127.0.0.2", fake.port):
        both = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, fake.port)) for address in ("127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: both)
        url = f"ws://phoenix.example:{fake.port}/socket/websocket"
        made = PhoenixSocket(settings_for(fake.port, url=url, connect_timeout_s=8.0))
        made.connect()
        made.close(60)


def test_unknown_host() -> None:
    error = connect_error(settings_for(1, url="ws://no-such-host.invalid:4000/socket/websocket"))
    assert isinstance(error, UnreachableError)
    assert "unknown" in error.what


def test_accepts_and_never_answers() -> None:
    def hold(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    with raw_server(hold) as port:
        error = connect_error(settings_for(port, connect_timeout_s=0.3))
    assert isinstance(error, UnreachableError)
    assert "did not answer within 0.3 s" in error.what


def test_answers_byte_by_byte_for_ever() -> None:
    """The deadline holds for the whole handshake, not for each read."""

    def drip(connection: socket.socket) -> None:
        read_request(connection)
        pause = threading.Event()
        while not pause.wait(0.05):
            connection.sendall(b"x")

    with raw_server(drip) as port:
        assert isinstance(connect_error(settings_for(port, connect_timeout_s=0.5)), UnreachableError)


def test_no_tls_there() -> None:
    def hold(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with raw_server(hold) as port:
        error = connect_error(settings_for(port, url=f"wss://127.0.0.1:{port}/socket/websocket"))
    assert isinstance(error, UnreachableError)
    assert "ws://" in error.advice


@pytest.mark.parametrize(
    "url", ["http://h/x", "localhost:4000", "ws://", "ws://h:port/", "ws://h:99999/", "ws://a:1,:2/x", "ws://[::1/x"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        PhoenixSocket(settings_for(1, url=url))
    assert caught.value.key == "phoenix.url"


def test_ca_file_that_is_none(tmp_path: object) -> None:
    options = {"url": "wss://127.0.0.1:1/socket/websocket", "tls_ca_file": "/nonexistent.pem"}
    error = connect_error(settings_for(1, **options))
    assert isinstance(error, SettingsError)
    assert error.key == "phoenix.tls_ca_file"


def test_request_line_and_headers(caplog: pytest.LogCaptureFixture) -> None:
    """Vsn and the escaped token; no Origin; nothing of it logged, even with websocket-client's trace switched on."""
    caplog.set_level(logging.DEBUG)
    websocket.enableTrace(traceable=True)
    requests: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        requests.append(read_request(connection))

    with raw_server(handle) as port:
        connect_error(settings_for(port, url=f"ws://127.0.0.1:{port}/socket/websocket?client=a%20b"))
        connect_error(settings_for(port, origin="http://ours"))
        connect_error(settings_for(port, token_in="protocol"))
    # The others ask what the server speaks, as it gave no answer.
    in_params, with_origin, in_protocol = (each for each in requests if each.startswith(b"GET /socket"))
    first_line = b"GET /socket/websocket?client=a%20b&token=tok%2Fen%2Bvery%20secret&vsn=2.0.0 HTTP/1.1\r\n"
    assert in_params.startswith(first_line)
    assert b"Origin" not in in_params
    assert b"\r\nOrigin: http://ours\r\n" in with_origin
    assert b"token" not in in_protocol
    header = b"\r\nSec-WebSocket-Protocol: phoenix, base64url.bearer.phx.dG9rL2VuK3Zlcnkgc2VjcmV0\r\n"
    assert header in in_protocol
    assert TOKEN not in caplog.text
    assert "dG9r" not in caplog.text


def test_token_from_the_url() -> None:
    requests: list[bytes] = []
    with raw_server(lambda connection: requests.append(read_request(connection))) as port:
        for url in (f"ws://me:in%2Furl@127.0.0.1:{port}/s", f"ws://127.0.0.1:{port}/s?token=in%2Furl"):
            error = connect_error(settings_for(port, url=url, token=Secret()))
            assert "in/url" not in str(error)
            assert "in%2Furl" not in str(error)
    upgrades = [request for request in requests if request.startswith(b"GET /s")]
    assert len(upgrades) == 2
    assert all(request.startswith(b"GET /s?token=in%2Furl&vsn=2.0.0 ") for request in upgrades)


def test_protocol_token_that_nobody_reads() -> None:
    with fake_phoenix() as fake:
        error = connect_error(settings_for(fake.port, token_in="protocol"))
    assert isinstance(error, RefusedError)
    assert "phoenix.token_in" in error.advice


def test_failover() -> None:
    with fake_phoenix() as fake:
        url = f"ws://127.0.0.1:{free_port()},127.0.0.1:{fake.port}/socket/websocket"
        phoenix = PhoenixSocket(settings_for(1, url=url))
        phoenix.connect()
        assert phoenix.address == fake.url
        phoenix.close(2)
