"""STOMP frames as pure functions over bytes: no I/O, no clock, no threads.

Source: STOMP 1.2 specification, "STOMP Frames", "Value Encoding", "Augmented BNF"; the limits are ActiveMQ's.
Two liberties, both as ActiveMQ takes them: undefined escapes pass through, and header bytes that are not UTF-8 are
kept (surrogateescape), so that what was read can be written again unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import Struct

from infertool.text.sanitize import wire_bytes

# The frames of the handshake come before a version is agreed, so their headers are never escaped.
UNESCAPED = frozenset({"CONNECT", "CONNECTED", "STOMP"})
# Half a character of UTF-16, which no text off a wire can hold.
_BETWEEN = "\ud800"
ENCODING = "utf-8"
ERRORS = "surrogateescape"


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


LIMITS = Limits()


class FrameError(Exception):
    """The bytes are no STOMP frame, or break a limit; the parser cannot go on.

    `frames` holds what the same `feed` had completed before the fault, `suspect` the id of the message that is at
    fault: the one that could not be read, or the last before the garbage. It is empty where none is known.
    """

    def __init__(self, reason: str, suspect: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.suspect = suspect
        self.frames: list[Frame] = []


def encode(command: str, headers: Mapping[str, str], body: bytes = b"", *, version: str = "1.2") -> bytes:
    """Return the frame's bytes. No content-length is added: whether there is one decides the JMS type.

    Raises FrameError when a header cannot be written: a line break where the version or the command has no escapes.
    """
    text = "".join([f"{key}:{value}\n" for key, value in headers.items()])
    if "\\" in text or "\r" in text or not text.count(":") == text.count("\n") == len(headers):
        escape = _raw if command in UNESCAPED or version == "1.0" else _ESCAPE[version]
        text = "".join([f"{escape(key, ':')}:{escape(value, '')}\n" for key, value in headers.items()])
    return b"%b\n%b\0" % (wire_bytes(f"{command}\n{text}"), body)


def escape_value(value: str, version: str) -> str:
    """Return a header value as it stands on the wire, for frames written by hand on hot paths.

    Raises FrameError for a line break in STOMP 1.0, which has no escapes.
    """
    return _raw(value, "") if version == "1.0" else _ESCAPE[version](value, "")


def encode_acks(ids: Iterable[str]) -> bytes:
    """Return an ACK frame (STOMP 1.2) for each of `ids`, one at least, escaped in one piece: settling is a hot path."""
    escaped = _escape_1_2(_BETWEEN.join(ids), "").replace(_BETWEEN, "\n\n\0ACK\nid:")
    return wire_bytes(f"ACK\nid:{escaped}\n\n\0")


def _raw(text: str, forbidden: str) -> str:
    if "\n" in text or "\r" in text or (forbidden and forbidden in text):
        raise FrameError("a header that cannot be escaped holds a line break or a colon")
    return text


def _escape_1_1(text: str, _forbidden: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace(":", "\\c")


def _escape_1_2(text: str, _forbidden: str) -> str:
    return _escape_1_1(text, "").replace("\r", "\\r")


_ESCAPE = {"1.1": _escape_1_1, "1.2": _escape_1_2}


def unescape(text: str, version: str) -> str:
    """Return what stood before the escapes of STOMP 1.1 or 1.2; undefined ones pass through."""
    if "\\\\" in text:
        # What stands between doubled backslashes holds only single escapes, so plain replacements are exact.
        return "\\".join([unescape(part, version) for part in text.split("\\\\")])
    text = text.replace("\\c", ":")
    if "\\" not in text:
        return text
    text = text.replace("\\n", "\n")
    return text.replace("\\r", "\r") if version == "1.2" else text
