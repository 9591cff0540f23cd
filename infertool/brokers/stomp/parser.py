"""Turning a stream of bytes into STOMP frames: a pure function of what was fed, however the stream was cut."""

from __future__ import annotations

import re
from typing import Final

from infertool.brokers.stomp.frames import ENCODING, ERRORS, LIMITS, UNESCAPED, Frame, FrameError, Limits, unescape

_MESSAGE: Final = b"MESSAGE\n"
_RECEIPT: Final = b"RECEIPT\nreceipt-id:"
_NO_BODY: Final = b"\n\n\0"
_UNPLAIN: Final = re.compile(rb"[\r\n:\\]")
# A number: `in` looks for bytes only after it failed to make a number of them, which takes ten times as long.
_CR: Final = 0x0D
_LF: Final = 0x0A
_LINE: Final = b"\n:"
_ALL_ELSE: Final = bytes(set(range(256)) - set(_LINE))
_DIGITS: Final = 9


def usual_frames(data: bytes, position: int, frames: list[Frame], version: str, limits: Limits) -> int:
    """Append whole frames of `data` from `position` on; return where one begins that is not usual, or not all there.

    Usual is a MESSAGE with line ends of one LF, each header once, no escapes but those of colons, and within limits. It
    has an id, and a body that holds a NUL is left to the careful parser: its length may be wrong. Usual is also a
    RECEIPT with nothing but a plain id.
    """
    while True:
        begin = position + 1 if data.startswith(b"\n", position) else position
        gap = data.find(b"\n\n", begin)
        head = data[begin:gap]
        if head.startswith(_RECEIPT) and data.startswith(_NO_BODY, gap) and _is_plain(head, limits):
            frames.append(Frame("RECEIPT", {"receipt-id": head[len(_RECEIPT) :].decode()}))
            position = gap + len(_NO_BODY)
            continue
        if gap < 0 or not head.startswith(_MESSAGE) or _CR in head or len(head) > limits.header_line:
            return position
        # The colons that separate become line ends before those that were escaped become colons.
        text = head.decode(ENCODING, ERRORS).replace(":", "\n").replace("\\c", ":")
        parts = text.split("\n")
        headers = dict(zip(parts[1::2], parts[2::2], strict=False))  # unequal only where the lines are, too
        lines = len(parts) // 2
        if len(headers) != lines or lines > limits.headers or head.translate(None, _ALL_ELSE) != _LINE * lines:
            return position
        if "\\" in text or (version == "1.0" and b"\\" in head):
            return position
        body = gap + 2
        end = _body_end(data, body, headers) if "content-length" in headers else data.find(b"\0", body)
        if not 0 <= end - body <= limits.body or "message-id" not in headers:
            return position
        frames.append(Frame("MESSAGE", headers, data[body:end]))
        position = end + 1


def _is_plain(head: bytes, limits: Limits) -> bool:
    """Return True if a head that begins as a RECEIPT's has one header, in letters that need no look at the version."""
    return head.isascii() and len(head) <= limits.header_line and not _UNPLAIN.search(head, len(_RECEIPT))


def _body_end(data: bytes, position: int, headers: dict[str, str]) -> int:
    """Return where the NUL after the announced body is, or -1 when that cannot be told at a glance."""
    text = headers["content-length"]
    if len(text) > _DIGITS or not (text.isascii() and text.isdigit()):
        return -1
    end = position + int(text)
    # The first NUL: within the body there is none.
    return end if data.find(b"\0", position, end + 1) == end else -1


_EXCERPT = 40
# Those of a 64-bit number.
DIGITS = 18
Head = tuple[str, dict[str, str], int | None]


class FrameParser:
    """Turns a stream of bytes into frames; how the stream is cut makes no difference.

    `version` may be set when it has been negotiated. Line ends between frames (heartbeats) are skipped. The work is
    linear in the bytes fed, also for a large body in small pieces.
    """

    def __init__(self, *, version: str = "1.2", limits: Limits = LIMITS) -> None:
        self.version = version
        self._limits = limits
        self._head: Head | None = None
        # Where the frame that is read now begins, in what was fed last.
        self._begin = 0
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
                position = usual_frames(data, position, frames, self.version, self._limits)
                position = self._read_head(data, position)
                if self._head is None:
                    break
            end = self._body_end(data, position, self._head[2])
            if end < 0:
                break
            command, headers, _ = self._head
            frames.append(Frame(command, headers, data[position:end]))
            self._head = None
            position = end + 1
        self._pending = bytearray(data[position:])
        self._look_again_at = 2 * len(self._pending)

    def _read_head(self, data: bytes, position: int) -> int:
        """Skip heartbeats and read a head, if all of it is there; return where the rest begins."""
        while data.startswith((b"\n", b"\r\n"), position):
            position += 1 if data[position] == _LF else 2
        self._begin = position
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

    def _to_head(self, block: bytes) -> Head:
        if len(block) > self._limits.header_line:
            self._check_lines(block)
        lines = block.decode(ENCODING, ERRORS).split("\n")
        if self.version == "1.2" and b"\r" in block:
            lines = [line.removesuffix("\r") for line in lines]
        command = lines[0]
        if not (command.isupper() and command.isalpha() and command.isascii()):
            raise FrameError(f"not a STOMP frame: {command[:_EXCERPT]!r}")
        if len(lines) > self._limits.headers + 1:
            raise FrameError(f"more than {self._limits.headers} headers")
        del lines[0]
        literal = command in UNESCAPED or self.version == "1.0"
        headers = self._to_headers(lines, 0 if literal else block.count(b"\\"))
        return command, headers, self._content_length(command, headers) if "content-length" in headers else None

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
                    headers[key] = unescape(value, self.version)
        if in_names or len(headers) != len(lines):
            return self._to_headers_one_by_one(lines, escaped=backslashes > 0)
        return headers

    def _to_headers_one_by_one(self, lines: list[str], *, escaped: bool) -> dict[str, str]:
        """Read headers that hold duplicates or escaped names: rare, so the usual way need not care."""
        headers: dict[str, str] = {}
        for line in lines:
            key, _, value = line.partition(":")
            if escaped:
                key, value = unescape(key, self.version), unescape(value, self.version)
            headers.setdefault(key, value)
        return headers

    def _content_length(self, _command: str, headers: dict[str, str]) -> int | None:
        text = headers["content-length"].strip()
        if not (text.isascii() and text.isdigit()):
            raise FrameError(f"content-length is no number: {text[:_EXCERPT]!r}")
        # More digits than any limit has need not become a number (and past 4300 cannot).
        if len(text) > DIGITS or int(text) > self._limits.body:
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
