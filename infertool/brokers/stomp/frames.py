"""STOMP frames as pure functions over bytes: no I/O, no clock, no threads.

Source: STOMP 1.2 specification, "STOMP Frames", "Value Encoding", "Augmented BNF"; the limits are ActiveMQ's.
Two liberties, both as ActiveMQ takes them: undefined escapes pass through, and header bytes that are not UTF-8 are
kept (surrogateescape), so that what was read can be written again unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import Struct

# The frames of the handshake come before a version is agreed, so their headers are never escaped.
_UNESCAPED = frozenset({"CONNECT", "CONNECTED", "STOMP"})
# UTF-16 halves that surrogateescape did not make: they have no UTF-8 form.
_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
# Such a half, which no text off a wire can hold.
_BETWEEN = "\ud800"
_ENCODING = "utf-8"
_ERRORS = "surrogateescape"
_EXCERPT = 40
_LF = 0x0A
_CR = 0x0D


class Frame(Struct, frozen=True, gc=False):
    """One frame. `headers` are unescaped, in the order they came; the first of duplicates is kept."""

    command: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest frame that is accepted, in bytes and headers."""

    header_line: int = 10 * 1024
    headers: int = 1000
    body: int = 100 * 1024 * 1024


_LIMITS = Limits()
_Head = tuple[str, dict[str, str], int | None]


class FrameError(Exception):
    """The bytes are no STOMP frame, or break a limit; the parser cannot go on.

    `frames` holds what the same `feed` had completed before the fault.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.frames: list[Frame] = []


def encode(command: str, headers: Mapping[str, str], body: bytes = b"", *, version: str = "1.2") -> bytes:
    """Return the frame's bytes. No content-length is added: whether there is one decides the JMS type.

    Raises FrameError when a header cannot be written: a line break where the version or the command has no escapes.
    """
    escape = _raw if command in _UNESCAPED or version == "1.0" else _ESCAPE[version]
    lines = [f"{escape(key, ':')}:{escape(value, '')}\n" for key, value in headers.items()]
    return b"%b\n%b\0" % (_to_bytes(f"{command}\n{''.join(lines)}"), body)


def escape_value(value: str, version: str) -> str:
    """Return a header value as it stands on the wire, for frames written by hand on hot paths.

    Raises FrameError for a line break in STOMP 1.0, which has no escapes.
    """
    return _raw(value, "") if version == "1.0" else _ESCAPE[version](value, "")


def encode_acks(ids: Iterable[str]) -> bytes:
    """Return an ACK frame (STOMP 1.2) for each of `ids`, one at least, escaped in one piece: settling is a hot path."""
    escaped = _escape_1_2(_BETWEEN.join(ids), "").replace(_BETWEEN, "\n\n\0ACK\nid:")
    return _to_bytes(f"ACK\nid:{escaped}\n\n\0")


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode(_ENCODING, _ERRORS)
    except UnicodeEncodeError:
        return _LONE_SURROGATES.sub("\ufffd", text).encode(_ENCODING, _ERRORS)


def _raw(text: str, forbidden: str) -> str:
    if "\n" in text or "\r" in text or (forbidden and forbidden in text):
        raise FrameError("a header that cannot be escaped holds a line break or a colon")
    return text


def _escape_1_1(text: str, _forbidden: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace(":", "\\c")


def _escape_1_2(text: str, _forbidden: str) -> str:
    return _escape_1_1(text, "").replace("\r", "\\r")


_ESCAPE = {"1.1": _escape_1_1, "1.2": _escape_1_2}


def _unescape(text: str, version: str) -> str:
    if "\\\\" in text:
        # What stands between doubled backslashes holds only single escapes, so plain replacements are exact.
        return "\\".join([_unescape(part, version) for part in text.split("\\\\")])
    text = text.replace("\\c", ":")
    if "\\" not in text:
        return text
    text = text.replace("\\n", "\n")
    return text.replace("\\r", "\r") if version == "1.2" else text


class FrameParser:
    """Turns a stream of bytes into frames; how the stream is cut makes no difference.

    `version` may be set when it has been negotiated. Line ends between frames (heartbeats) are skipped. The work is
    linear in the bytes fed, also for a large body in small pieces.
    """

    def __init__(self, *, version: str = "1.2", limits: Limits = _LIMITS) -> None:
        self.version = version
        self._limits = limits
        self._head: _Head | None = None
        # An open frame's bytes: of its head, or of its body once `_head` is known.
        self._pending = bytearray()
        self._look_again_at = 0

    @property
    def mid_frame(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._head is not None or bool(self._pending)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. Raises FrameError."""
        if self._pending:
            if not self._grow(data):
                return []
            data = bytes(self._pending)
        frames: list[Frame] = []
        try:
            self._parse(data, frames)
        except FrameError as fault:
            fault.frames = frames
            raise
        return frames

    def _grow(self, data: bytes) -> bool:
        """Add to the open frame; tell whether looking at all of it can be worth while."""
        seen = max(0, len(self._pending) - 2)
        self._pending += data
        if self._head is None:
            ended = self._pending.find(b"\n\n", seen) >= 0 or self._pending.find(b"\n\r\n", seen) >= 0
        elif self._head[2] is None:
            ended = self._pending.find(0, seen) >= 0
        else:
            return len(self._pending) > self._head[2]
        # Limits are looked at each time the open frame has doubled: often enough, and still linear.
        return ended or len(self._pending) >= self._look_again_at

    def _parse(self, data: bytes, frames: list[Frame]) -> None:
        position = 0
        while True:
            if self._head is None:
                position = self._read_head(data, position)
                if self._head is None:
                    break
            command, headers, length = self._head
            end = self._body_end(data, position, length)
            if end < 0:
                break
            frames.append(Frame(command, headers, data[position:end]))
            self._head = None
            position = end + 1
        self._pending = bytearray(data[position:])
        self._look_again_at = 2 * len(self._pending)

    def _read_head(self, data: bytes, position: int) -> int:
        """Skip heartbeats and read a head, if all of it is there; return where the rest begins."""
        while data.startswith((b"\n", b"\r\n"), position):
            position += 1 if data[position] == _LF else 2
        end = self._head_end(data, position)
        if end < 0:
            self._check_open_head(data, position)
            return position
        self._head = self._to_head(data[position:end])
        return end + (2 if data[end + 1] == _LF else 3)

    def _head_end(self, data: bytes, position: int) -> int:
        """Return where the line end before the first empty line is, or -1."""
        first = data.find(b"\n", position)
        if first < 0 or self.version != "1.2":
            return data.find(b"\n\n", position)
        # The usual line end is looked for first, and the other one only before it: a search for what the peer never
        # sends would run to the end of the buffer for each frame.
        usual, other = (b"\n\r\n", b"\n\n") if data[first - 1] == _CR else (b"\n\n", b"\n\r\n")
        end = data.find(usual, position)
        earlier = data.find(other, position, end + 1 if end >= 0 else len(data))
        return earlier if earlier >= 0 else end

    def _check_open_head(self, data: bytes, position: int) -> None:
        if data.count(b"\n", position) > self._limits.headers + 1:
            raise FrameError(f"more than {self._limits.headers} headers")
        if len(data) - max(position, data.rfind(b"\n", position) + 1) > self._limits.header_line + 1:
            raise FrameError(f"a header line of more than {self._limits.header_line} bytes")

    def _to_head(self, block: bytes) -> _Head:
        if len(block) > self._limits.header_line:
            self._check_lines(block)
        lines = block.decode(_ENCODING, _ERRORS).split("\n")
        if self.version == "1.2" and b"\r" in block:
            lines = [line.removesuffix("\r") for line in lines]
        command = lines[0]
        if not (command.isupper() and command.isalpha() and command.isascii()):
            raise FrameError(f"not a STOMP frame: {command[:_EXCERPT]!r}")
        if len(lines) > self._limits.headers + 1:
            raise FrameError(f"more than {self._limits.headers} headers")
        del lines[0]
        literal = command in _UNESCAPED or self.version == "1.0"
        headers = self._to_headers(lines, 0 if literal else block.count(b"\\"))
        return command, headers, self._content_length(headers) if "content-length" in headers else None

    def _check_lines(self, block: bytes) -> None:
        if any(len(line.removesuffix(b"\r")) > self._limits.header_line for line in block.split(b"\n")):
            raise FrameError(f"a header line of more than {self._limits.header_line} bytes")

    def _to_headers(self, lines: list[str], backslashes: int) -> dict[str, str]:
        """Return the headers; `backslashes` of escapes are in their lines."""
        try:
            headers: dict[str, str] = dict([line.split(":", 1) for line in lines])
        except ValueError:
            raise FrameError("a header line without a colon") from None
        in_names = backslashes
        if backslashes:
            for key, value in headers.items():
                if "\\" in value:
                    in_names -= value.count("\\")
                    headers[key] = _unescape(value, self.version)
        if in_names or len(headers) != len(lines):
            return self._to_headers_one_by_one(lines, escaped=backslashes > 0)
        return headers

    def _to_headers_one_by_one(self, lines: list[str], *, escaped: bool) -> dict[str, str]:
        """Read headers that hold duplicates or escaped names: rare, so the usual way need not care."""
        headers: dict[str, str] = {}
        for line in lines:
            key, _, value = line.partition(":")
            if escaped:
                key, value = _unescape(key, self.version), _unescape(value, self.version)
            headers.setdefault(key, value)
        return headers

    def _content_length(self, headers: dict[str, str]) -> int:
        text = headers["content-length"].strip()
        if not (text.isascii() and text.isdigit()):
            raise FrameError(f"content-length is no number: {text[:_EXCERPT]!r}")
        # More digits than any limit has need not become a number (and past 4300 cannot).
        if len(text) > 18 or int(text) > self._limits.body:  # noqa: PLR2004  # digits of a 64-bit number
            raise FrameError(f"a body of more than {self._limits.body} bytes")
        return int(text)

    def _body_end(self, data: bytes, position: int, length: int | None) -> int:
        """Return where the NUL after the body is, or -1 while it has not come."""
        if length is not None:
            end = position + length
            if end >= len(data):
                return -1
            if data[end]:
                raise FrameError("no NUL after the body that content-length announced")
            return end
        end = data.find(0, position)
        if (len(data) if end < 0 else end) - position > self._limits.body:
            raise FrameError(f"a body of more than {self._limits.body} bytes")
        return end
