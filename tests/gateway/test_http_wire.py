"""What comes over raw sockets: slow, endless, contradicting, too large, too many."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx
import pytest

from infertool.gateway import protocol
from infertool.gateway.request import State
from infertool.gateway.server import listen
from tests.gateway.front_server import LONG, FrontServer, read_all

HEAD = b"POST /v1/models/default/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[FrontServer]:
    # Each part may take a second, so that what is too slow for that is refused soon.
    with FrontServer(max_body_bytes=1_000_000, receive_timeout_s=1.0) as running:
        yield running


def problem(answer: bytes) -> tuple[int, str]:
    """Return status and reason of the last response in `answer`."""
    head, _, body = answer[answer.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head, answer
    return int(head.split()[1]), json.loads(body)["reason"]


TWICE = (400, "invalid_header")
TOO_LARGE = (413, "body_too_large")
END = b"Connection: close\r\n"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
SHAPES: dict[str, bytes] = {
    "length and coding": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "coding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 40\r\n\r\n1" + SMUGGLED,
    "two equal lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n1" + SMUGGLED,
    "lengths in a list": HEAD + b"Content-Length: 1, 40\r\n\r\n1" + SMUGGLED,
    "signed length": HEAD + b"Content-Length: +1\r\n\r\n1",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n1",
    "length in hex": HEAD + b"Content-Length: 0x1\r\n\r\n1",
    "length past 64 bits": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n1",
    "length with a space": HEAD + b"Content-Length : 1\r\n\r\n1",
    "two codings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n1\r\n1\r\n0\r\n\r\n",
    "unknown coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
    "hidden coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
    "coding after a tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
    "folded header": HEAD + b"X-A: b\r\n c: d\r\nContent-Length: 1\r\n\r\n1",
    "folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
    "bare line feeds": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 1\n\n1",
    "bare carriage return": HEAD + b"X-A: b\rTransfer-Encoding: chunked\r\n\r\n",
    "NUL in a header": HEAD + b"X-A: b\x00c\r\nContent-Length: 1\r\n\r\n1",
    "space in a name": HEAD + b"X A: b\r\nContent-Length: 1\r\n\r\n1",
    "header without a name": HEAD + b": b\r\nContent-Length: 1\r\n\r\n1",
    "two hosts": HEAD + b"Host: y\r\nContent-Length: 1\r\n\r\n1",
    "no host": HEAD.replace(b"Host: x\r\n", b"") + b"Content-Length: 1\r\n\r\n1",
    "no target": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "target without a slash": b"GET v1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "another version": b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
    "TLS on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
    "nonsense": bytes(range(256)) * 4,
    "chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n1\r\n0\r\n\r\n",
    "chunk past 64 bits": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n1\r\n0\r\n\r\n",
    "chunk without its end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n12\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_others_may_read_differently_is_refused_and_ends_the_connection(server: FrontServer, shape: str) -> None:
    known = len(server.engine.known)
    answer = read_all(server.raw(SHAPES[shape]))
    # One response, or none where the request had begun to run: nothing after it was taken for a request.
    assert answer.count(b"HTTP/1.1 ") <= 1, answer
    if answer:
        assert problem(answer) in {(400, "invalid_http"), (404, "not_found")}, answer
    assert len(server.engine.known) == known
    assert httpx.get(f"{server.url}/livez").status_code == 200


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HEAD + b"X-A: %b\r\nContent-Length: 1\r\n\r\n1" % (b"a" * 70_000), (431, "headers_too_large")),
        (HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(201)) + b"\r\n", (431, "headers_too_large")),
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 70_000), (431, "headers_too_large")),
        (HEAD + b"Content-Length: 1000000000\r\n\r\n{", (413, "body_too_large")),
        (HEAD + b"Expect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n", (413, "body_too_large")),
        (HEAD + END + b"Infertool-Class: a\r\nInfertool-Class: b\r\nContent-Length: 1\r\n\r\n1", TWICE),
        (HEAD + END + b"X-Api-Key: a\r\nX-Api-Key: a\r\nContent-Length: 1\r\n\r\n1", TWICE),
        (HEAD + b"Content-Length: 5\r\n\r\n1", (408, "body_timeout")),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n", (408, "body_timeout")),
    ],
    ids=["header", "headers", "target", "1 GB", "1 GB, expect", "class twice", "key twice", "short", "no last chunk"],
)  # fmt: skip
def test_each_limit_has_its_answer(server: FrontServer, data: bytes, expected: tuple[int, str]) -> None:
    answer = read_all(server.raw(data + b""))
    assert problem(answer) == expected
    assert b"100 Continue" not in answer
    assert server.front.chain.reading == 0


def drip(line: socket.socket, part: bytes, pause_s: float) -> bytes:
    """Send `part` again and again, until the server closes; return what it said."""
    line.settimeout(pause_s)
    said = b""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        try:
            line.sendall(part)
            found = line.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            break
        if not found:
            break
        said += found
    line.close()
    return said


@pytest.mark.parametrize(
    ("begin", "part", "pause_s", "expected"),
    [
        (b"POST /v1/infer HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n", 0.2, (408, "header_timeout")),
        (HEAD + b"Content-Length: 900000\r\n\r\n", b" ", 0.2, (408, "body_timeout")),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.2, (408, "body_timeout")),
    ],
    ids=["headers", "body", "chunks"],
)  # fmt: skip
def test_what_drips_is_cut_off(
    server: FrontServer, begin: bytes, part: bytes, pause_s: float, expected: tuple[int, str]
) -> None:
    assert problem(drip(server.raw(begin), part, pause_s)) == expected


def test_chunks_without_end_are_cut_off() -> None:
    """By a server that gives them more time than it takes to send too much."""
    with FrontServer(max_body_bytes=100_000, receive_timeout_s=LONG) as patient:
        line = patient.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert problem(drip(line, b"4000\r\n%b\r\n" % (b" " * 0x4000), 0.001)) == TOO_LARGE


def test_bodies_that_do_not_come_keep_nobody_out() -> None:
    with FrontServer(max_waiting_bytes=200_000, max_body_bytes=100_000, receive_timeout_s=2.0) as server:
        lines = [server.raw(HEAD + b"Content-Length: 100000\r\n\r\n ") for _ in range(4)]
        deadline = time.monotonic() + LONG
        while server.front.chain.reading < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert server.raw(HEAD + END + b"Content-Length: 1\r\n\r\n1").recv(12) == b"HTTP/1.1 200"
        # What has come of them takes memory: more than half of it is not left to those who are slow from then on.
        for line in lines:
            line.sendall(b" " * 30_000)
        with ThreadPoolExecutor() as pool:
            drips = [pool.submit(drip, line, b" ", 0.2) for line in lines]
            first = next(as_completed(drips, LONG)).result()
            for line in lines:
                line.close()
        assert problem(first) == (408, "body_timeout")
        assert b"65536 bytes per second" in first


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
LAST = b"\r\n1\r\n1\r\n0\r\n"


@pytest.mark.parametrize("extra", [b"", b"X-Api-Key: wrong\r\n"], ids=["known", "refused"])
@pytest.mark.parametrize("part", [b"X-A: b\r\n" * 2000, b"x" * 16_000], ids=["lines", "one line"])
def test_trailers_without_end_end_the_connection(extra: bytes, part: bytes) -> None:
    most = 20_000_000
    with FrontServer(receive_timeout_s=LONG) as patient:
        line = patient.raw(CHUNKED + extra + LAST + b"X-T: ")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < most:
                line.sendall(part)
                sent += len(part)
        assert sent < most
        # What was refused before is not refused again.
        assert read_all(line).count(b"HTTP/1.1 ") <= 1
        assert not patient.engine.known


def test_trailers_are_no_headers(server: FrontServer) -> None:
    answer = read_all(server.raw(CHUNKED + END + LAST + b"X-Api-Key: wrong\r\nX-T: a\r\n\r\n"))
    assert b'"prediction":1' in answer


@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_body_of_the_next_request_comes_late(monkeypatch: pytest.MonkeyPatch, is_chunked: bool) -> None:
    """It began while the first one ran: it is waited for, and not thrown away."""
    monkeypatch.setattr(protocol, "DISCARD_S", 0.05)
    first = HEAD + b'Content-Length: 6\r\n\r\n"hold"'
    second = CHUNKED + END + b"\r\n3\r\n[1,\r\n" if is_chunked else HEAD + END + b"Content-Length: 5\r\n\r\n[1,"
    with FrontServer(receive_timeout_s=LONG) as server:
        line = server.raw(first + second)
        deadline = time.monotonic() + LONG
        while not server.engine.known:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.run(server.engine.finish(next(iter(server.engine.known)), State.SUCCEEDED, b"1"))
        answer = b""
        while b'"prediction":1' not in answer:
            answer += line.recv(65536)
        # Each part comes by itself.
        for part in (b"2\r\n2]\r\n", b"0\r\n\r\n") if is_chunked else (b"2", b"]"):
            time.sleep(0.2)
            line.sendall(part)
        assert b'"prediction":[1,2]' in answer + read_all(line)


def test_a_connection_that_says_nothing_is_closed(server: FrontServer) -> None:
    assert read_all(server.raw()) == b""


def test_blank_lines_do_not_keep_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "KEEP_ALIVE_S", 0.5)
    with FrontServer() as server:
        # Some clients send one behind the body.
        line = server.raw(HEAD + b"Content-Length: 1\r\n\r\n1\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
        line.sendall(b"\r\n")
        assert read_all(line) == b""


def test_a_long_answer_outlives_the_idle_time_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "KEEP_ALIVE_S", 0.2)
    with FrontServer() as server:
        hold = HEAD + END + b"Content-Length: 6\r\n\r\n"
        # The second request has begun when the response to the first one is complete.
        line = server.raw(HEAD + b"Content-Length: 1\r\n\r\n1" + hold[:20])
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
        line.sendall(hold[20:] + b'"hold"')
        while len(server.engine.known) < 2:
            time.sleep(0.01)
        time.sleep(2.5)  # the connections are looked at once a second
        server.run(server.engine.finish([*server.engine.known][1]))
        assert read_all(line).startswith(b"HTTP/1.1 200")


def test_many_requests_at_once_may_wish_for_another_protocol(
    server: FrontServer, caplog: pytest.LogCaptureFixture
) -> None:
    wish = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade%b\r\nUpgrade: h2c\r\n\r\n"
    line = server.raw(wish % b"" * 1000 + wish % b", close")
    assert read_all(line).count(b"HTTP/1.1 200") == 1001
    assert not caplog.records


def test_a_refused_body_is_thrown_away_and_the_connection_goes_on(server: FrontServer) -> None:
    body = b"x" * 500_000
    line = server.raw(HEAD + b"X-API-Key: wrong\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body) + SMUGGLED)
    line.settimeout(LONG)
    said = b""
    while b"infertool_gateway_ready 1.0" not in said:
        part = line.recv(65536)
        assert part, said[-500:]
        said += part
    line.close()
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"HTTP/1.1 200 OK" in said


def test_expect_is_answered_before_the_body(server: FrontServer) -> None:
    line = server.raw(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert line.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.sendall(b"42")
    assert b'"prediction":42' in read_all(line)


def test_headers_come_in_pieces_and_requests_at_once(server: FrontServer) -> None:
    request = HEAD + b"Content-Length: 2\r\n\r\n42"
    line = server.raw()
    for byte in request[:60]:
        line.sendall(bytes([byte]))
    line.sendall(request[60:] + request + request.replace(b"Host", b"Connection: close\r\nHost"))
    answer = read_all(line)
    assert answer.count(b'"prediction":42') == 3


@pytest.mark.parametrize(
    "length", [b"Content-Length: 2\r\n\r\n42", b"Transfer-Encoding: chunked\r\n\r\n2\r\n42\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_wish_for_another_protocol_is_ignored(server: FrontServer, length: bytes, pieces: int) -> None:
    # As Java's HttpClient and curl --http2 ask by default.
    settings = b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAA\r\n"
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + settings
    data = (HEAD + wish + length) * 2 + HEAD + wish.replace(b"Upgrade,", b"Upgrade, close,") + length
    line = server.raw()
    for at in range(0, len(data), -(-len(data) // pieces)):
        line.sendall(data[at : at - (-len(data) // pieces)])
    assert read_all(line).count(b'"prediction":42') == 3


def test_a_header_cannot_put_another_into_the_response(server: FrontServer) -> None:
    given = "a\u0085b"
    answer = read_all(
        server.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: %b\r\n\r\n" % given.encode())
    )
    assert given.encode() not in answer
    answer = read_all(
        server.raw(b"GET /v1/requests/a%0d%0aX-Evil:%20b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    )
    assert problem(answer) == (404, "unknown_request")
    assert b"Evil" not in answer


def test_responses_do_not_wait_for_acknowledgements() -> None:
    """A response goes out in two parts: with Nagle's algorithm the second one takes 40 ms."""
    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        with socket.create_connection(bound.getsockname()), bound.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_one_connection_too_many_is_told_so() -> None:
    with FrontServer(max_connections=20) as server:
        held = [server.raw() for _ in range(20)]
        assert httpx_after(server, lambda status: status == 503) == {"status": 503, "reason": "too_many_connections"}
        for line in held:
            line.close()
        assert httpx_after(server, lambda status: status == 200) == {}


def httpx_after(server: FrontServer, wanted: Callable[[int], bool]) -> dict[str, object]:
    """Ask until the status is as wanted; return what a problem says."""
    deadline = time.monotonic() + LONG
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{server.url}/livez")
            if wanted(answer.status_code):
                found = answer.json() if answer.status_code != 200 else {}
                return {name: found[name] for name in ("status", "reason") if name in found}
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
def test_ten_thousand_idle_connections_harm_nobody() -> None:
    # Ours and the server's end are files of one process here.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, (hard - 1000) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * count + 1000), hard))
    lines: list[socket.socket] = []
    try:
        with FrontServer(receive_timeout_s=300.0) as server:
            try:
                for number in range(count):
                    line = socket.create_connection(("127.0.0.1", server.port), LONG)
                    lines.append(line)
                    if number % 2:
                        line.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                        line.recv(1000)
                answer = httpx.post(f"{server.url}/v1/models/default/infer", json=1, timeout=LONG)
                assert answer.status_code == 200
                scrape = httpx.get(f"{server.url}/metrics", timeout=LONG).text
                assert f"infertool_gateway_connections {count + 1}.0" in scrape
            finally:
                for line in lines:
                    line.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
