"""Client-to-server WebSocket frames as bytes: the hot half of RFC 6455 (section 5), a write at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import Final

try:  # websockets itself chooses in this way: C where there is a wheel for the platform
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_FIN: Final = 0x80
_MASKED: Final = 0x80
_SHORT, _MEDIUM = 126, 1 << 16
_KEY_BYTES: Final = 4


def frames(messages: Sequence[bytes], opcode: int) -> Iterator[bytes]:
    """Yield a whole frame for each of `messages`, masked with a key of its own."""
    keys = os.urandom(_KEY_BYTES * len(messages))
    for number, message in enumerate(messages):
        key = keys[_KEY_BYTES * number : _KEY_BYTES * (number + 1)]
        yield b"%b%b%b" % (_head(len(message), opcode), key, apply_mask(message, key))


def _head(length: int, opcode: int) -> bytes:
    if length < _SHORT:
        return bytes((_FIN | opcode, _MASKED | length))
    if length < _MEDIUM:
        return struct.pack("!BBH", _FIN | opcode, _MASKED | _SHORT, length)
    return struct.pack("!BBQ", _FIN | opcode, _MASKED | _SHORT + 1, length)
