"""Field tables: the values of AMQP headers, with RabbitMQ's types.

Source: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3. A text that is no UTF-8 comes as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from infertool.text.sanitize import wire_bytes

Value = Any
Table = dict[str, Value]

# A nested table takes at least three bytes a level, and Python a frame of its stack.
_DEEPEST: Final = 100
_LONGEST_NAME: Final = 255
_MOST_DECIMALS: Final = 255
_MOST_SECONDS: Final = 253_402_300_799
_INT32: Final = range(-(2**31), 2**31)
_INT64: Final = range(-(2**63), 2**63)
# Times past all years, which come as numbers.
_TIMES: Final = range(2**63, 2**64)

_LENGTH: Final = struct.Struct(">I")
_NUMBERS: Final = {
    tag: struct.Struct(form)
    for tag, form in {
        b"b"[0]: ">b", b"B"[0]: ">B", b"s"[0]: ">h", b"U"[0]: ">h", b"u"[0]: ">H", b"I"[0]: ">i", b"i"[0]: ">I",
        b"l"[0]: ">q", b"L"[0]: ">q", b"f"[0]: ">f", b"d"[0]: ">d",
    }.items()
}  # fmt: skip
_STRING, _BYTES, _BOOL, _TABLE, _ARRAY, _TIME, _DECIMAL, _VOID = b"SxtFATDV"
_SIZED: Final = frozenset({_STRING, _BYTES})


class TableError(ValueError):
    """Bytes that are no table, or a value that no table can hold."""


def decode(data: bytes, at: int) -> tuple[Table, int]:
    """Return the table at this place, and where it ends. Raises TableError."""
    try:
        return _table(data, at, 0)
    except (struct.error, IndexError, UnicodeError) as fault:
        raise TableError(f"no table of headers: {fault}") from None


def _table(data: bytes, at: int, depth: int) -> tuple[Table, int]:
    if depth > _DEEPEST:
        raise TableError(f"tables within more than {_DEEPEST} others")
    end = at + 4 + _LENGTH.unpack_from(data, at)[0]
    if end > len(data):
        raise TableError("the table ends before its length")
    at += 4
    table: Table = {}
    while at < end:
        start = at + 1
        at = start + data[at]
        name = data[start:at].decode("utf-8", "surrogateescape")
        # Most values are texts.
        if data[at] == _STRING:
            start = at + 5
            at = start + _LENGTH.unpack_from(data, at + 1)[0]
            if at > len(data):
                raise TableError("a value ends before its length")
            table[name] = _text(data[start:at])
        else:
            table[name], at = _value(data, at, depth)
    if at != end:
        raise TableError("the table is longer than its length")
    return table, at


def _value(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    tag = data[at]
    at += 1
    if tag in _SIZED:
        at += 4
        end = at + _LENGTH.unpack_from(data, at - 4)[0]
        if end > len(data):
            raise TableError("a value ends before its length")
        return (_text(data[at:end]) if tag == _STRING else data[at:end]), end
    if number := _NUMBERS.get(tag):
        return number.unpack_from(data, at)[0], at + number.size
    other = _OTHERS.get(tag)
    if other is None:
        raise TableError(f"a value of the unknown type {chr(tag)!r}")
    return other(data, at, depth)


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _bool(data: bytes, at: int, _depth: int) -> tuple[Value, int]:
    return data[at] != 0, at + 1


def _void(_data: bytes, at: int, _depth: int) -> tuple[Value, int]:
    return None, at


def _time(data: bytes, at: int, _depth: int) -> tuple[Value, int]:
    seconds: int = struct.unpack_from(">Q", data, at)[0]
    # Some producers write milliseconds: what is no date stays a number.
    return datetime.fromtimestamp(seconds, UTC) if seconds <= _MOST_SECONDS else seconds, at + 8


def _decimal(data: bytes, at: int, _depth: int) -> tuple[Value, int]:
    decimals, raw = struct.unpack_from(">Bi", data, at)
    return Decimal(raw).scaleb(-decimals), at + 5


def _array(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if depth > _DEEPEST:
        raise TableError(f"arrays within more than {_DEEPEST} others")
    end = at + 4 + _LENGTH.unpack_from(data, at)[0]
    if end > len(data):
        raise TableError("an array ends before its length")
    at += 4
    values = []
    while at < end:
        value, at = _value(data, at, depth + 1)
        values.append(value)
    return values, at


def _nested(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    return _table(data, at, depth + 1)


_Decoder = Callable[[bytes, int, int], tuple[Value, int]]
_OTHERS: Final[Mapping[int, _Decoder]] = {
    _BOOL: _bool, _VOID: _void, _TIME: _time, _DECIMAL: _decimal, _ARRAY: _array, _TABLE: _nested,
}  # fmt: skip


def encode(table: Mapping[str, Value]) -> bytes:
    """Return the table as bytes. Raises TableError for what AMQP has no type for."""
    parts: list[bytes] = []
    for name, value in table.items():
        parts.append(_name(name))
        if type(value) is str:
            text = wire_bytes(value)
            parts += (b"S", _LENGTH.pack(len(text)), text)
        else:
            parts.append(encode_value(value))
    body = b"".join(parts)
    return _LENGTH.pack(len(body)) + body


def short(text: str) -> bytes:
    """Return a short string. Raises TableError for more than 255 bytes."""
    data = wire_bytes(text)
    if len(data) > _LONGEST_NAME:
        raise TableError(f"{text[:40]}... has more than {_LONGEST_NAME} bytes")
    return bytes((len(data),)) + data


# Messages have the names of those before them.
_name: Final = lru_cache(maxsize=512)(short)


def encode_value(value: Value) -> bytes:
    """Return a value with its type. Raises TableError."""
    for kinds, encoder in _ENCODERS:
        if isinstance(value, kinds):
            return encoder(value)
    raise TableError(f"AMQP has no type for {type(value).__name__}")


def holds(value: Value) -> bool:
    """Return True if a table keeps `value` as it is."""
    try:
        encode_value(value)
    except TableError:
        return False
    return True


def _with_size(tag: bytes, data: bytes) -> bytes:
    return tag + _LENGTH.pack(len(data)) + data


def _int(value: int) -> bytes:
    if value in _INT32:
        return struct.pack(">ci", b"I", value)
    if value in _INT64:
        return struct.pack(">cq", b"l", value)
    if value in _TIMES:
        return struct.pack(">cQ", b"T", value)
    raise TableError(f"the number {value} has more than 64 bits")


def _encode_time(value: datetime) -> bytes:
    seconds = value.timestamp()
    if value.microsecond or seconds < 0:
        raise TableError(f"AMQP has no time {value.isoformat()}, only whole seconds since 1970")
    return struct.pack(">cQ", b"T", int(seconds))


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, str) or not -_MOST_DECIMALS <= exponent <= _MOST_DECIMALS:
        raise TableError(f"AMQP has no decimal {value}")
    raw = int("".join(map(str, digits))) * 10 ** max(0, exponent) * (-1 if sign else 1)
    if raw not in _INT32:
        raise TableError(f"the decimal {value} has more than 32 bits")
    return struct.pack(">cBi", b"D", max(0, -exponent), raw)


# A truth value is a whole number to Python, so it comes first.
_ENCODERS: Final[Sequence[tuple[Any, Callable[[Any], bytes]]]] = (
    (str, lambda value: _with_size(b"S", wire_bytes(value))),
    (bytes, lambda value: _with_size(b"x", value)),
    (bool, lambda value: b"t\x01" if value else b"t\x00"),
    (int, _int),
    (float, lambda value: struct.pack(">cd", b"d", value)),
    (type(None), lambda _value: b"V"),
    (datetime, _encode_time),
    (Decimal, _encode_decimal),
    (Mapping, lambda value: b"F" + encode(value)),
    ((list, tuple), lambda value: _with_size(b"A", b"".join(map(encode_value, value)))),
)
