"""Types of header values: every value has a text, and what is no text has a type tag beside it.

The layers above the adapters search, compare, show and archive texts. A broker whose headers have types gets them back
from the tag: `from_text(*to_text(value)) == value`.

| tag | value | text |
|---|---|---|
| `` | text | itself |
| `int` | whole number, -2^63 to 2^64-1 | `-7` |
| `float` | number | `0.5`, `1e+300`, `nan`, `-inf` |
| `bool` | truth value | `true`, `false` |
| `bytes` | bytes | base64 |
| `time` | point in time | ISO 8601 in UTC, `2026-01-31T03:00:00Z`; a time without a zone is taken for UTC |
| `decimal` | decimal fraction | `12.50` |
| `null` | nothing | empty |
| `json` | table or list | JSON; see below |

Within JSON, a value that JSON does not have is `{"$TAG": TEXT}`; a table that looks like this is `{"$table": {...}}`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final, Self

from infertool.errors import InfertoolError
from infertool.message import Message

TEXT: Final = ""
INT, FLOAT, BOOL, BYTES, TIME, DECIMAL, NULL, JSON = (
    "int", "float", "bool", "bytes", "time", "decimal", "null", "json",
)  # fmt: skip

LEAST_INT: Final = -(2**63)
MOST_INT: Final = 2**64 - 1
# Levels of tables within tables. RabbitMQ takes more; no producer means them.
MOST_LEVELS: Final = 64
_SHOWN: Final = 40

_INT: Final = re.compile(r"0|-?[1-9][0-9]{0,19}")
_FLOAT: Final = re.compile(r"nan|-?(inf|[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?)")
_BOOLEANS: Final = {"true": True, "false": False}
_TABLE: Final = "$table"
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class HeaderTypeError(InfertoolError):
    """A text is no value of the type that stands beside it, or a value has no text. `tag` is the type."""

    def __init__(self, what: str, *, tag: str = "", advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.tag = tag


def to_text(value: object) -> tuple[str, str]:
    """Return the text of a header's value and its type tag, empty for text. Raises `HeaderTypeError`."""
    match value:
        case str():
            pair = str(value), TEXT
        case bool():
            pair = "true" if value else "false", BOOL
        case int():
            pair = _int_text(value), INT
        case float():
            pair = float.__repr__(value), FLOAT
        case bytes() | bytearray() | memoryview():
            pair = base64.b64encode(value).decode(), BYTES
        case datetime():
            pair = _time_text(value), TIME
        case Decimal() if value.is_finite():
            pair = str(value), DECIMAL
        case None:
            pair = "", NULL
        case Mapping() | list() | tuple():
            text = json.dumps(_packed(value, 0), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            # Bytes that are no UTF-8 are escapes here, so that the text is UTF-8 whatever it is of.
            pair = _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", text), JSON
        case _:
            raise HeaderTypeError(f"a header of the type {type(value).__name__} has no text: {str(value)[:_SHOWN]!r}")
    return pair


def from_text(text: str, tag: str) -> Any:
    """Return the value of a text and a type tag. Raises `HeaderTypeError` for an unknown tag, or a text of no value."""
    if tag == TEXT:
        return text
    read = _READERS.get(tag)
    if read is None:
        raise HeaderTypeError(f"{tag[:_SHOWN]!r} is no type of a header", tag=tag, advice=f"known: {', '.join(TAGS)}")
    try:
        return read(text)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, binascii.Error):
        raise HeaderTypeError(f"{text[:_SHOWN]!r} is no header of the type {tag}", tag=tag) from None


def to_texts(values: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts of headers, and the tags of those that are no texts. Raises `HeaderTypeError`."""
    texts: dict[str, str] = {}
    tags: dict[str, str] = {}
    for name, value in values.items():
        # Most are texts.
        if type(value) is str:
            texts[name] = value
            continue
        texts[name], tag = to_text(value)
        if tag:
            tags[name] = tag
    return texts, tags


def from_texts(texts: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of headers. Raises `HeaderTypeError`, which names the header."""
    if not tags:
        return dict(texts)
    values: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            values[name] = from_text(text, tags.get(name, TEXT))
        except HeaderTypeError as fault:
            raise HeaderTypeError(f"header {name}: {fault.what}", tag=fault.tag, advice=fault.advice) from None
    return values


class TypedText(str):
    """The text of a header that is no text, with its type: under another name, or in another mapping, it keeps both."""

    __slots__ = ("tag",)
    tag: str

    def __new__(cls, text: str, tag: str) -> Self:
        """Return `text` with its type tag."""
        self = super().__new__(cls, text)
        self.tag = tag
        return self


def of(message: Message) -> dict[str, str]:
    """Return the headers of a message, those that are no texts as `TypedText`."""
    headers, types = message.headers, message.types
    return {**headers, **{name: TypedText(headers[name], tag) for name, tag in types.items() if name in headers}}


def tags(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the type tags of those headers that are `TypedText`, by name."""
    return {name: text.tag for name, text in headers.items() if isinstance(text, TypedText)}


def _int_text(value: int) -> str:
    if not LEAST_INT <= value <= MOST_INT:
        raise HeaderTypeError("a header is a whole number of more than 64 bits", tag=INT)
    # A subclass may print itself otherwise (pika's long does).
    return int.__repr__(value)


def _time_text(value: datetime) -> str:
    at = value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise HeaderTypeError(f"{value} is no time in UTC", tag=TIME) from None


def _packed(value: object, level: int) -> object:
    """Return `value` as JSON has it."""
    if level > MOST_LEVELS:
        raise HeaderTypeError(f"a header has more than {MOST_LEVELS} tables within each other", tag=JSON)
    match value:
        case Mapping():
            table = {_name(name): _packed(item, level + 1) for name, item in value.items()}
            return {_TABLE: table} if _looks_typed(table) else table
        case list() | tuple():
            return [_packed(item, level + 1) for item in value]
        case _:
            return _packed_scalar(value)


def _packed_scalar(value: object) -> object:
    text, tag = to_text(value)
    match tag:
        case "" | "bool" | "int" | "null":
            # JSON has it.
            return _READERS[tag](text) if tag else text
        case "float" if math.isfinite(number := float(text)):
            return number
        case _:
            return {f"${tag}": text}


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise HeaderTypeError(f"a table in a header has the name {str(name)[:_SHOWN]!r}, which is no text", tag=JSON)
    return name


def _looks_typed(table: Mapping[str, object]) -> bool:
    return len(table) == 1 and next(iter(table)).startswith("$")


def _unpacked(value: Any, level: int) -> Any:
    if level > MOST_LEVELS:
        raise ValueError(level)
    match value:
        case dict() if _looks_typed(value):
            [(mark, inner)] = value.items()
            return _unpacked_table(inner, level) if mark == _TABLE else _INNER[mark](inner)
        case dict():
            return _unpacked_table(value, level)
        case list():
            return [_unpacked(item, level + 1) for item in value]
        case int() if not LEAST_INT <= value <= MOST_INT:
            raise ValueError(value)
    return value


def _unpacked_table(table: Any, level: int) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise TypeError(table)
    return {name: _unpacked(item, level + 1) for name, item in table.items()}


def _read_int(text: str) -> int:
    value = int(_matched(_INT, text))
    if not LEAST_INT <= value <= MOST_INT:
        raise ValueError(text)
    return value


def _read_float(text: str) -> float:
    return float(_matched(_FLOAT, text))


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _read_time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def _read_decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or str(value) != text:
        raise ValueError(text)
    return value


def _read_null(text: str) -> None:
    if text:
        raise ValueError(text)


def _read_json(text: str) -> Any:
    value = _unpacked(json.loads(text, object_pairs_hook=_table, parse_constant=_refuse), 0)
    if not isinstance(value, dict | list):
        raise TypeError(text)
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands twice")
    return table


def _refuse(text: str) -> None:
    raise ValueError(text)


def _matched(form: re.Pattern[str], text: str) -> str:
    if form.fullmatch(text) is None:
        raise ValueError(text)
    return text


_READERS: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType({
    INT: _read_int, FLOAT: _read_float, BOOL: _BOOLEANS.__getitem__, BYTES: _read_bytes, TIME: _read_time,
    DECIMAL: _read_decimal, NULL: _read_null, JSON: _read_json,
})  # fmt: skip
TAGS: Final = tuple(_READERS)
# What may stand for a value within JSON.
_INNER: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType({
    f"${FLOAT}": _read_float, f"${BYTES}": _read_bytes, f"${TIME}": _read_time, f"${DECIMAL}": _read_decimal,
})  # fmt: skip
