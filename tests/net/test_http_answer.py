"""Responses read from bytes in any pieces; what has no clear end is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies._internal.core import DataObject

from infertool.net.http_answer import Answer, AnswerError, AnswerReader
from infertool.net.http_client import Target

CASES = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nRetry-After:  7 \r\n\r\nhello", (200, b"hello", True)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
    (
        b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nX: y\r\n\r\nHTTP/1.1 429 \r\ncontent-length: 0\r\n\r\n",
        (429, b"", True),
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        (200, b"abc0123456789", True),
    ),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", False)),
    (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True)),
    (b"HTTP/1.1 503 X\r\nConnection: close\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", (503, b"ok", False)),
]


def fed(reader: AnswerReader, pieces: list[bytes]) -> list[Answer]:
    return [answer for piece in pieces if (answer := reader.feed(piece))]


@given(st.sampled_from(CASES), st.data())
def test_a_response_is_read_in_any_pieces(case: tuple[bytes, tuple[int, bytes, bool]], data: DataObject) -> None:
    text, expected = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    (answer,) = fed(AnswerReader(100), pieces)
    assert (answer.status, answer.body, answer.keeps) == expected
    assert answer.header("retry-after") == ("7" if answer.status == 200 and b"Retry" in text else None)


def test_responses_follow_each_other_and_the_end_completes_a_body_without_length() -> None:
    reader = AnswerReader(100)
    for text, (status, body, _) in CASES:
        assert [(each.status, each.body) for each in fed(reader, [text])] == [(status, body)]
    assert not reader.began
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nup to ") is None
    assert reader.feed(b"the end") is None
    answer = reader.end()
    assert answer
    assert (answer.body, answer.keeps) == (b"up to the end", False)
    assert AnswerReader(9).end() is None


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 X\r\n\r\n",
        b"<html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"32\r\n" + b"x" * 50 + b"\r\n33\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
    ],
)
def test_what_has_no_clear_end_is_refused(text: bytes) -> None:
    with pytest.raises(AnswerError):
        AnswerReader(100).feed(text)


def test_only_the_status_is_read_where_bodies_do_not_matter() -> None:
    reader = AnswerReader(None)
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n") is None
    answer = reader.feed(b"\r\nsome of it")
    assert answer
    assert (answer.status, answer.body, answer.keeps) == (200, b"", False)


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("http://h", "h", "/"), ("http://h:8080/a?b", "h:8080", "/a?b"), ("https://h:443", "h", "/"),
        ("http://[::1]:81/", "[::1]:81", "/"), ("HTTP://Host/", "host", "/"),
        ("http://h.example.:81", "h.example.:81", "/"), (f"http://{'a' * 63}.b", f"{'a' * 63}.b", "/"),
    ],
)  # fmt: skip
def test_targets(url: str, authority: str, path: str) -> None:
    target = Target.of(url)
    assert (target.authority, target.path) == (authority, path)


@pytest.mark.parametrize(
    "url",
    [
        "", "h", "ftp://h", "http://", "http://u:p@h/", "http://h:99999/", "http://h /", "http://ü/", "http://[x]/",
        "http://a..b", "http://.", "http://.a", "http://a.b..", f"http://{'a' * 64}.b", f"http://{'a.' * 127}",
    ],
)  # fmt: skip
def test_no_targets(url: str) -> None:
    with pytest.raises(ValueError, match=None):
        Target.of(url)
