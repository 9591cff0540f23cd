"""The head of a model server's answer: interim responses before it, and headers that trickle."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from infertool.errors import InferenceError
from infertool.models.port import LoadedModel
from infertool.net.http_response import WholeResponse
from tests.models.test_http import EVENT, LONG_S, failure, kind
from tests.support.modelserver import ModelServer, Reply, Request, answer


@pytest.mark.parametrize(
    "heads", [["102 Processing"], ["103 Early Hints"], ["100 Continue", "103 Early Hints", "199 Odd"]]
)
def test_interim_answers_are_not_the_answer(
    server: ModelServer, opened: Callable[..., LoadedModel], heads: list[str]
) -> None:
    """The answer would come later, on a kept connection, where it is that of the next event."""

    def parts(request: Request) -> Iterator[bytes]:
        for head in heads:
            yield f"HTTP/1.1 {head}\r\nlink: </style.css>\r\n\r\n".encode()
        body = json.dumps(request.json["event_id"])
        yield f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()

    server.handler = lambda request: Reply(parts(request))
    model = opened(server.url)
    assert [model.predict({"event_id": f"e{number}"}) for number in range(5)] == ["e0", "e1", "e2", "e3", "e4"]
    assert server.connections == 1


def test_a_server_that_changes_the_protocol_unasked(server: ModelServer, opened: Callable[..., LoadedModel]) -> None:
    server.handler = lambda _request: Reply(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n")
    model = opened(server.url)
    error = failure(model)
    assert (kind(error), "broke off" in str(error)) == ("tried again", True)
    server.handler = lambda _request: answer({"class": "A"})
    assert model.predict(EVENT) == {"class": "A"}


@pytest.mark.parametrize("part", [b"x: y\r\n", b"\r\nHTTP/1.1 100 Continue\r\n", b"\r\nHTTP/1.1 103 Early Hints\r\n"])
def test_a_server_whose_headers_trickle(server: ModelServer, opened: Callable[..., LoadedModel], part: bytes) -> None:
    assert_too_slow(server, opened, b"HTTP/1.1 100 Continue\r\n", part)


def assert_too_slow(server: ModelServer, opened: Callable[..., LoadedModel], begin: bytes, part: bytes) -> None:
    """Check that a server that sends `begin`, and `part` again and again, is left after the model's timeout."""
    released = threading.Event()

    def drops() -> Iterator[bytes]:
        yield begin
        while not released.wait(0.1):
            yield part

    server.handler = lambda _request: Reply(drops())
    errors: list[InferenceError] = []
    caller = threading.Thread(target=lambda: errors.append(failure(opened(server.url, timeout_s=0.5))), daemon=True)
    caller.start()
    caller.join(LONG_S)
    released.set()
    (error,) = errors
    assert (kind(error), "model.timeout_s" in str(error)) == ("tried again", True)


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("begin", [HEAD + b"2;x=", HEAD + b"2\r\n{}\r\n0\r\nx: "], ids=["size", "trailer"])
def test_a_server_whose_body_trickles_between_its_chunks(
    server: ModelServer, opened: Callable[..., LoadedModel], begin: bytes
) -> None:
    assert_too_slow(server, opened, begin, b"x")


def test_a_response_leaves_its_connection_the_timeout_that_it_had() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LONG_S)
        theirs.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        response = WholeResponse(ours)
        response.begin()
        assert (ours.gettimeout() or 0) < LONG_S
        assert response.read() == b"{}"
        assert ours.gettimeout() == LONG_S
