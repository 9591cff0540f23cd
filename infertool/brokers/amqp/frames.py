"""AMQP frames: parsing what came, and encoding what is sent most."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from pika import spec

from infertool.brokers.amqp import tables

HELLO: Final = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END: Final = 0xCE
BEAT: Final = struct.pack(">BHIB", HEARTBEAT, 0, 0, END)
# Bytes of a frame beside its payload.
OVERHEAD: Final = 8
# The largest frame we agree to, which is RabbitMQ's default.
FRAME_MAX: Final = 131_072

_HEAD: Final = struct.Struct(">BHI")
_INDEX: Final = struct.Struct(">I")
_CONFIRMATION: Final = struct.Struct(">QB")
_ACK: Final = struct.Struct(">BHIIQBB")
_ACK_BYTES: Final = 13
_CONTENT: Final = struct.Struct(">BHIHHQ")
_KINDS: Final = frozenset({METHOD, HEADER, BODY, HEARTBEAT})

# Kind, channel, payload.
Frame = tuple[int, int, bytes]


class FrameError(Exception):
    """What came is not AMQP. `frames` are those before it."""

    def __init__(self, reason: str, frames: Sequence[Frame] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.frames = frames


class Parser:
    """Cuts a stream of bytes into frames of at most `frame_max` bytes."""

    def __init__(self) -> None:
        self._rest = b""
        self.frame_max = FRAME_MAX

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete with `data`. Raises FrameError."""
        buffer = self._rest + data if self._rest else data
        frames: list[Frame] = []
        at, end = 0, len(buffer)
        while end - at >= OVERHEAD:
            kind, channel, size = _HEAD.unpack_from(buffer, at)
            if kind not in _KINDS or size > self.frame_max:
                raise FrameError(f"a frame of type {kind} with {size} bytes", frames)
            stop = at + 7 + size
            if stop >= end:
                break
            if buffer[stop] != END:
                raise FrameError("a frame without its end", frames)
            frames.append((kind, channel, buffer[at + 7 : stop]))
            at = stop + 1
        self._rest = buffer[at:]
        return frames


def index(payload: bytes) -> int:
    """Return the number of the method in the payload of a method frame. Raises FrameError."""
    if len(payload) < _INDEX.size:
        raise FrameError("a method frame without a method")
    number: int = _INDEX.unpack_from(payload)[0]
    return number


def decode(payload: bytes) -> Any:
    """Return the method in the payload of a method frame, as pika's. Raises FrameError."""
    number = index(payload)
    kind = spec.methods.get(number)
    if kind is None:
        raise FrameError(f"the unknown method {number:#010x}")
    try:
        return kind().decode(payload, 4)
    except Exception as fault:  # noqa: BLE001  # pika raises what its slices and struct happen to
        raise FrameError(f"a {kind.NAME} that cannot be read: {fault!r}") from None


def confirmation(payload: bytes) -> tuple[int, bool]:
    """Return the number that a basic.ack or basic.nack names, and if it is meant up to that. Raises FrameError."""
    try:
        tag, bits = _CONFIRMATION.unpack_from(payload, _INDEX.size)
    except struct.error as fault:
        raise FrameError(f"a confirmation that cannot be read: {fault}") from None
    return tag, bits & 1 == 1


def encode(channel: int, method: Any) -> bytes:
    """Return the frame of one of pika's methods."""
    return frame(METHOD, channel, _INDEX.pack(method.INDEX) + b"".join(method.encode()))


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return one frame."""
    return _HEAD.pack(kind, channel, len(payload)) + payload + b"\xce"


def acks(channel: int, tags: Sequence[int], *, up_to: int = 0) -> bytes:
    """Return acks of single deliveries, and of all not yet acked up to one, which comes first."""
    first = [_ACK.pack(METHOD, channel, _ACK_BYTES, spec.Basic.Ack.INDEX, up_to, 1, END)] if up_to else []
    number = spec.Basic.Ack.INDEX
    return b"".join([*first, *(_ACK.pack(METHOD, channel, _ACK_BYTES, number, tag, 0, END) for tag in tags)])


# Replies go to few callers, and dead letters to one queue.
@lru_cache(maxsize=512)
def publish_head(channel: int, routing_key: str) -> bytes:
    """Return the method frame of a mandatory publish to the default exchange. Raises TableError."""
    method = spec.Basic.Publish.INDEX
    return frame(METHOD, channel, struct.pack(">IHB", method, 0, 0) + tables.short(routing_key) + b"\x01")


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Return the frames of a message's properties and body."""
    size, most = len(body), frame_max - OVERHEAD
    head = _CONTENT.pack(HEADER, channel, 12 + len(properties), spec.Basic.INDEX, 0, size) + properties + b"\xce"
    if size <= most:
        return head + _HEAD.pack(BODY, channel, size) + body + b"\xce" if size else head
    parts = [head]
    for start in range(0, size, most):
        piece = body[start : start + most]
        parts += (_HEAD.pack(BODY, channel, len(piece)), piece, b"\xce")
    return b"".join(parts)
