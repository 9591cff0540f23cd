"""The frames that brokers send thousands of, read in a few steps; the careful parser reads all others."""

from __future__ import annotations

from typing import Final

from infertool.brokers.stomp.frames import ENCODING, ERRORS, Frame, Limits

_MESSAGE: Final = b"MESSAGE\n"
# A number: `in` looks for bytes only after it failed to make a number of them, which takes ten times as long.
_CR: Final = 0x0D
_LINE: Final = b"\n:"
_ALL_ELSE: Final = bytes(set(range(256)) - set(_LINE))
_DIGITS: Final = 9


def usual_frames(data: bytes, position: int, frames: list[Frame], version: str, limits: Limits) -> int:
    """Append whole frames of `data` from `position` on; return where one begins that is not usual, or not all there.

    Usual is a MESSAGE with line ends of one LF, each header once, no escapes but those of colons, and within limits. It
    has an id, and a body that holds a NUL is left to the careful parser: its length may be wrong.
    """
    while True:
        begin = position + 1 if data.startswith(b"\n", position) else position
        gap = data.find(b"\n\n", begin)
        head = data[begin:gap]
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


def _body_end(data: bytes, position: int, headers: dict[str, str]) -> int:
    """Return where the NUL after the announced body is, or -1 when that cannot be told at a glance."""
    text = headers["content-length"]
    if len(text) > _DIGITS or not (text.isascii() and text.isdigit()):
        return -1
    end = position + int(text)
    # The first NUL: within the body there is none.
    return end if data.find(b"\0", position, end + 1) == end else -1
