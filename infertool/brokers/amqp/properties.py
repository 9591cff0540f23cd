"""The properties of an AMQP message between their bytes and fields."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from msgspec import Struct

from infertool.brokers.amqp import tables
from infertool.brokers.amqp.tables import Table, TableError

_NONE: Final[Mapping[str, object]] = {}
_MOST_SECONDS: Final = 2**64
PERSISTENT: Final = 2
_FLAGS: Final = struct.Struct(">H")
_TIME: Final = struct.Struct(">Q")
# Values that messages share.
_common: Final = lru_cache(maxsize=256)(tables.short)

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION = 1 << 11, 1 << 10, 1 << 9, 1 << 8
_MESSAGE_ID, _TIMESTAMP, _TYPE, _REST, _MORE = 1 << 7, 1 << 6, 1 << 5, (1 << 4, 1 << 3, 1 << 2), 1
_ANY_REST: Final = 0b11100


class Fields(Struct, gc=False):
    """The properties of a message. `rest` are user id, application id and cluster id."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Table | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    rest: tuple[str, ...] = ()


def decode(data: bytes, at: int) -> Fields:  # one branch a property, in their order
    """Return the properties from this place on. Raises TableError."""
    fields = Fields()
    try:
        flags = data[at] << 8 | data[at + 1]
        at += 2
        if flags & _MORE:
            raise TableError("properties of a later protocol")
        if flags & _CONTENT_TYPE:
            fields.content_type, at = _short(data, at)
        if flags & _CONTENT_ENCODING:
            fields.content_encoding, at = _short(data, at)
        if flags & _HEADERS:
            fields.headers, at = tables.decode(data, at)
        if flags & _DELIVERY_MODE:
            fields.delivery_mode = data[at]
            at += 1
        if flags & _PRIORITY:
            fields.priority = data[at]
            at += 1
        if flags & _CORRELATION_ID:
            fields.correlation_id, at = _short(data, at)
        if flags & _REPLY_TO:
            fields.reply_to, at = _short(data, at)
        if flags & _EXPIRATION:
            fields.expiration, at = _short(data, at)
        if flags & _MESSAGE_ID:
            fields.message_id, at = _short(data, at)
        if flags & _TIMESTAMP:
            fields.timestamp = _TIME.unpack_from(data, at)[0]
            at += 8
        if flags & _TYPE:
            fields.type, at = _short(data, at)
        if flags & _ANY_REST:
            fields.rest = _rest(data, at, flags)
    except (struct.error, IndexError) as fault:
        raise TableError(f"the properties end early: {fault}") from None
    return fields


def _rest(data: bytes, at: int, flags: int) -> tuple[str, ...]:
    rest = []
    for flag in _REST:
        if flags & flag:
            text, at = _short(data, at)
            rest.append(text)
    return tuple(rest)


def _short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end > len(data):
        raise TableError("a property ends before its length")
    return data[at + 1 : end].decode("utf-8", "surrogateescape"), end


def encode(fields: Fields) -> bytes:
    """Return flags and properties, in the order of `decode`. Raises TableError for what AMQP cannot hold."""
    flags = 0
    parts: list[bytes] = []
    if fields.content_type is not None:
        flags |= _CONTENT_TYPE
        parts.append(_common(fields.content_type))
    if fields.content_encoding is not None:
        flags |= _CONTENT_ENCODING
        parts.append(_common(fields.content_encoding))
    if fields.headers:
        flags |= _HEADERS
        parts.append(tables.encode(fields.headers))
    if fields.delivery_mode is not None:
        flags |= _DELIVERY_MODE
        parts.append(_octet(fields.delivery_mode))
    if fields.priority is not None:
        flags |= _PRIORITY
        parts.append(_octet(fields.priority))
    if fields.correlation_id is not None:
        flags |= _CORRELATION_ID
        parts.append(tables.short(fields.correlation_id))
    if fields.reply_to is not None:
        flags |= _REPLY_TO
        parts.append(tables.short(fields.reply_to))
    if fields.expiration is not None:
        flags |= _EXPIRATION
        parts.append(tables.short(fields.expiration))
    if fields.message_id is not None:
        flags |= _MESSAGE_ID
        parts.append(tables.short(fields.message_id))
    if fields.timestamp is not None:
        flags |= _TIMESTAMP
        parts.append(_TIME.pack(fields.timestamp % _MOST_SECONDS))
    if fields.type is not None:
        flags |= _TYPE
        parts.append(tables.short(fields.type))
    return _FLAGS.pack(flags) + b"".join(parts)


def _octet(value: int) -> bytes:
    return bytes((min(max(value, 0), 255),))
