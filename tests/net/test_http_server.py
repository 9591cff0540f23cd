"""The HTTP server of metrics and health: routes, clients that misbehave, and its end."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from infertool.errors import ListenError
from infertool.net import http_server
from infertool.net.http_server import HttpServer, Request, Response

LONG = 60
POST = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"


def answer(request: Request) -> Response:
    return Response(f"{request.path} {dict(request.query)} {request.accept}".encode())


def broken(_request: Request) -> Response:
    return Response(b"no", status=HTTPStatus.SERVICE_UNAVAILABLE)


def large(_request: Request) -> Response:
    return Response(iter([b"x" * 100_000] * 1000))


@pytest.fixture
def server() -> Iterator[HttpServer]:
    made = HttpServer("127.0.0.1", 0, {"/a": answer, "/broken": broken, "/large": large}, name="test")
    made.start()
    yield made
    made.close()


def ask(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG)
    connection.request(method, path, headers={"Accept": "text/x"})
    response = connection.getresponse()
    found = response.status, response.read().decode()
    connection.close()
    return found


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/a", 200, "/a {} text/x"),
        ("/a/", 200, "/a/ {} text/x"),
        ("/a?verbose", 200, "/a {'verbose': ''} text/x"),
        ("/a?x=1&x=%202&y=%C3%A4", 200, "/a {'x': ' 2', 'y': 'ä'} text/x"),
        ("/broken", 503, "no"),
        ("/", 404, "not found; there are:\n/a\n/broken\n/large\n"),
        ("/a/b", 404, "not found; there are:\n/a\n/broken\n/large\n"),
    ],
)
def test_routes(server: HttpServer, path: str, status: int, text: str) -> None:
    assert ask(server, path) == (status, text)


def test_head_has_no_body_and_post_is_refused(server: HttpServer) -> None:
    assert ask(server, "/a", "HEAD") == (200, "")
    assert ask(server, "/a", "POST")[0] == HTTPStatus.METHOD_NOT_ALLOWED


def test_a_fault_of_a_route_is_an_answer_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_request: Request) -> Response:
        raise ValueError("ours")

    server = HttpServer("127.0.0.1", 0, {"/a": answer, "/fail": fail}, name="test")
    server.start()
    assert ask(server, "/fail") == (500, "internal error\n")
    assert ask(server, "/a")[0] == HTTPStatus.OK
    server.close()
    assert "answering /fail failed" in caplog.text


def test_a_connection_takes_several_requests(server: HttpServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG)
    for _ in range(3):
        connection.request("GET", "/a")
        assert connection.getresponse().read().startswith(b"/a")
    connection.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"CONNECT\n\n\0",
        b"GET\r\n\r\n",
        b"GET /a HTTP/9.9\r\n\r\n",
        b"x" * 70_000,
        b"GET /a HTTP/1.1\r\n" + b"h: v\r\n" * 200 + b"\r\n",
        b"",
    ],
)
def test_garbage_ends_its_own_connection_only(server: HttpServer, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert ask(server, "/a")[0] == HTTPStatus.OK


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_target_that_is_no_url_is_not_found(server: HttpServer, method: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        connection.sendall(f"{method} http://[/a HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        assert connection.makefile("rb").readline() == b"HTTP/1.1 404 Not Found\r\n"


def test_clients_that_say_or_take_nothing_do_not_hold_others_up(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port), LONG) for _ in range(5)]
    for connection in slow[:3]:
        connection.sendall(b"GET /large HTTP/1.1\r\n\r\n")
    assert ask(server, "/a")[0] == HTTPStatus.OK
    for connection in slow:
        connection.close()


def test_a_silent_client_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server._Handler, "timeout", 0.1)
    server = HttpServer("127.0.0.1", 0, {"/a": answer}, name="test")
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        assert connection.recv(100) == b""
    server.close()


@pytest.mark.parametrize("start", [b"", b"GET /a HTTP/1.1\r\nHost: x\r\n", POST])
def test_a_client_that_sends_a_byte_now_and_then_is_left_after_a_while(
    monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(http_server._Handler, "timeout", 0.5)
    server = HttpServer("127.0.0.1", 0, {"/a": answer}, name="test", posts={"/p": answer})
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.02) as slow:
        slow.sendall(start)
        deadline = time.monotonic() + LONG
        while takes_more(slow):
            assert time.monotonic() < deadline
    server.close()


def takes_more(connection: socket.socket) -> bool:
    """Send a byte. Return False once the server has ended the connection."""
    try:
        connection.send(b"1")
        return connection.recv(1000) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_too_many_connections_are_closed_at_once(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port), LONG) for _ in range(http_server.MOST_CONNECTIONS)]
    with socket.create_connection(("127.0.0.1", server.port), LONG) as one_more:
        assert one_more.recv(100) == b""
    for connection in held:
        connection.close()


def test_a_stream_ends_with_the_server() -> None:
    def pieces() -> Iterator[bytes]:
        number = 0
        while not running.stopping.wait(0.01):
            number += 1
            yield f"{number}\n".encode()

    running = server = HttpServer("127.0.0.1", 0, {"/s": lambda _request: Response(pieces())}, name="test")
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG)
    connection.request("GET", "/s")
    response = connection.getresponse()
    assert response.readline() == b"1\n"
    assert response.readline() == b"2\n"
    closing = threading.Thread(target=server.close)
    closing.start()
    response.read()
    closing.join(LONG)
    assert not closing.is_alive()
    connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_told(host: str) -> None:
    server = HttpServer(host, 0, {}, name="test")
    with pytest.raises(ListenError, match="Address already in use; choose another address or port") as told:
        HttpServer(host, server.port, {}, name="test")
    assert told.value.address == server.address
    assert told.value.exit_code == 3
    server.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 300])
def test_an_address_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on {host}:0"):
        HttpServer(host, 0, {}, name="test")
