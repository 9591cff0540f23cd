"""Bodies of letters as JSON, as results and alerts show them: unpacked, and of MessagePack what JSON can hold."""

from __future__ import annotations

from typing import Final

from infertool import codec
from infertool.message import Message
from infertool.text import json_text

# What is larger when it is unpacked stays packed.
MOST_UNPACKED: Final = 64 * 1024 * 1024


def is_packed(message: Message) -> bool:
    """Return True if the body is said to be packed by gzip or zstd."""
    return codec.is_packed(message.coding[1])


def is_msgpack(message: Message) -> bool:
    """Return True if the body is said to be MessagePack."""
    return codec.for_content_type(message.coding[0] or "") is codec.MSGPACK


def as_json(message: Message) -> bytes:
    """Return the body as JSON. A body that is none, or not what its properties say, comes as it is."""
    body = message.body
    try:
        if is_packed(message):
            body = codec.unpacked(body, message.coding[1] or "", MOST_UNPACKED)
        if is_msgpack(message):
            return json_text.dumps(codec.for_json(codec.decode(codec.MSGPACK, body)))
    except (codec.DecodeError, TypeError, RecursionError):
        return body
    return json_text.utf8(body)
