"""Reads HTTP/1.1 responses from bytes as they come: bounded, and strict about where a body ends."""

from __future__ import annotations

import re
from typing import Final

_MOST_HEAD: Final = 65_536
_END: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\r\n]*)?\r\n")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CODING: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CONNECTION: Final = re.compile(rb"\r\nconnection:[ \t]*([^\r\n]*)", re.IGNORECASE)
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?")
_MOST_DIGITS: Final = 15
_LONGEST_SIZE_LINE: Final = 1_024
_INFORMATION: Final = 200
_WITHOUT_BODY: Final = {204, 304}


class AnswerError(Exception):
    """The server's bytes are no response that can be read, or too many."""


class Answer:
    """A response. `keeps` is True if the connection may carry another one."""

    __slots__ = ("_head", "body", "keeps", "status")

    def __init__(self, status: int, head: bytes, body: bytes, *, keeps: bool) -> None:
        self.status = status
        self.body = body
        self.keeps = keeps
        self._head = head

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        found = re.search(rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r\n]*)", self._head, re.IGNORECASE)
        return found[1].decode("latin-1").strip() if found else None


class AnswerReader:
    """Reads one response after the other. A body has at most `max_body` bytes; None: bodies are not read at all."""

    def __init__(self, max_body: int | None) -> None:
        self._max_body = max_body or 0
        self._reads_bodies = max_body is not None
        self._bytes = bytearray()
        self._head = b""
        self._status = 0
        self._keeps = True
        self._left: int | None = None  # bytes of the body to come; None: chunks, or up to the end
        self._chunks: _Chunks | None = None

    @property
    def began(self) -> bool:
        """Return True if a part of a response is here."""
        return bool(self._bytes or self._head)

    def feed(self, data: bytes) -> Answer | None:
        """Take bytes; return the response once it is whole. Raises `AnswerError`, also for bytes after its end."""
        self._bytes += data
        while not self._head:
            if not self._take_head():
                return None
        if not self._reads_bodies:
            self._bytes.clear()
            self._keeps = False
            return self._ended(b"")
        if self._chunks:
            body = self._chunks.take(self._bytes)
            return None if body is None else self._ended(body)
        if self._left is None:
            if len(self._bytes) > self._max_body:
                raise self._too_large()
            return None
        if len(self._bytes) < self._left:
            return None
        body = bytes(self._bytes[: self._left])
        del self._bytes[: self._left]
        return self._ended(body)

    def end(self) -> Answer | None:
        """Return the response that the end of the connection completes, if it does."""
        if self._head and self._left is None and not self._chunks:
            body = bytes(self._bytes)
            self._bytes.clear()
            return self._ended(body)
        return None

    def _take_head(self) -> bool:
        """Read a head. Return False if it is not here yet; one of an interim response is dropped."""
        at = self._bytes.find(_END)
        if at < 0 and len(self._bytes) <= _MOST_HEAD:
            return False
        if not 0 <= at <= _MOST_HEAD:
            raise AnswerError(f"its headers have more than {_MOST_HEAD} bytes")
        head = bytes(self._bytes[: at + 2])
        del self._bytes[: at + len(_END)]
        line = _STATUS.match(head)
        if line is None:
            raise AnswerError("it is no HTTP/1.1 response")
        self._status = int(line[2])
        if self._status < _INFORMATION:
            return True
        self._head = head
        if self._reads_bodies:
            self._frame(line[1] == b"1", head)
        return True

    def _frame(self, is_new: bool, head: bytes) -> None:  # noqa: FBT001  (the version of the protocol)
        """Find out where the body ends."""
        connection = _CONNECTION.search(head)
        tokens = connection[1].lower() if connection else b""
        self._keeps = b"close" not in tokens if is_new else b"keep-alive" in tokens
        coding, lengths = _CODING.search(head), set(_LENGTH.findall(head))
        if self._status in _WITHOUT_BODY:
            self._left = 0
        elif coding:
            if coding[1].strip().lower() != b"chunked" or lengths:
                raise AnswerError("the end of its body cannot be known")
            self._chunks = _Chunks(self._max_body)
        elif lengths:
            self._left = self._length(lengths)
        else:
            self._left = None
            self._keeps = False

    def _length(self, lengths: set[bytes]) -> int:
        text = lengths.pop().strip()
        if lengths or not text.isdigit() or len(text) > _MOST_DIGITS:
            raise AnswerError("the length of its body cannot be known")
        if int(text) > self._max_body:
            raise self._too_large()
        return int(text)

    def _too_large(self) -> AnswerError:
        return AnswerError(f"its body has more than {self._max_body} bytes")

    def _ended(self, body: bytes) -> Answer:
        if self._bytes:
            raise AnswerError("it goes on behind the end of its body")
        answer = Answer(self._status, self._head, body, keeps=self._keeps)
        self._head, self._left, self._chunks = b"", None, None
        return answer


class _Chunks:
    """A body in chunks."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._body = bytearray()
        self._is_last = False

    def take(self, data: bytearray) -> bytes | None:
        """Take the chunks that are whole off `data`; return the body after the last one. Raises `AnswerError`."""
        while True:
            end = data.find(b"\r\n")
            if end < 0:
                if len(data) > _LONGEST_SIZE_LINE:
                    raise AnswerError("its chunks cannot be read")
                return None
            if self._is_last:
                # Trailers are dropped, up to the empty line.
                del data[: end + 2]
                if not end:
                    return bytes(self._body)
                continue
            line = _SIZE.fullmatch(data[:end])
            if line is None:
                raise AnswerError("its chunks cannot be read")
            size = int(line[1], 16)
            if len(self._body) + size > self._max_body:
                raise AnswerError(f"its body has more than {self._max_body} bytes")
            if not size:
                self._is_last = True
                del data[: end + 2]
            elif len(data) < end + size + 4:
                return None
            elif data[end + size + 2 : end + size + 4] != b"\r\n":
                raise AnswerError("its chunks cannot be read")
            else:
                self._body += data[end + 2 : end + 2 + size]
                del data[: end + size + 4]
