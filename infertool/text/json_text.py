"""JSON that keeps its numbers: integers of any size, and edits that leave the rest of a text unchanged.

orjson turns an integer past 64 bits into a float, and writes `1.10` as `1.1`. `loads` and `dumps` keep integers. Text
that is only forwarded is never decoded and encoded again (`one_line`, `pretty`, `raw_elements`); `find` and `put` read
and replace one value of a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final, Self

import msgspec
import orjson

from infertool.text.sanitize import printable

# msgspec decodes all that orjson decodes, as fast, and integers of any size.
_decode: Final = msgspec.json.Decoder().decode
_decode_raw: Final = msgspec.json.Decoder(msgspec.Raw).decode
_decode_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_NOT_READ = (msgspec.MsgspecError, UnicodeError, RecursionError)
# As numbers: `in` looks for bytes only after it failed to make a number of them, which takes ten times as long.
_LF, _CR = 0x0A, 0x0D
_LINE_BREAKS_TO_SPACES: Final = bytes.maketrans(b"\r\n", b"  ")
# Java's modified UTF-8, in which ActiveMQ sends a JMS TextMessage: a character past U+FFFF is two surrogates of three
# bytes each, a NUL is two bytes.
_JAVA: Final = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]|\xc0\x80")
_JAVA_NUL: Final = b"\xc0\x80"
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 64) - 1
_LARGE: Final = re.compile(rb"\d{19}")
# A decimal that a float may not hold has 16 digits or more, or a very small exponent.
_LONG_DECIMAL: Final = re.compile(rb"[\d.]{16}|[eE]-\d{3}")


class JsonError(ValueError):
    """The text is not JSON. The message says why, and where."""


class NumberError(JsonError):
    """The text is JSON with a number out of range: past 4300 digits, or past a double, such as 1e400."""


def loads(text: bytes | str) -> Any:
    """Return the decoded value. Raises `JsonError`, `NumberError`."""
    try:
        return _decode(text)
    except _NOT_READ:
        return _decode_unusual(text)


def utf8(text: bytes) -> bytes:
    """Return `text`, which may be Java's modified UTF-8, as UTF-8."""
    if text.isascii() or not _JAVA.search(text):
        return text
    return _JAVA.sub(lambda found: _from_java(found[0]), text)


def utf8_line(text: bytes) -> bytes:
    """Return JSON as `utf8` and `one_line` do."""
    if text.isascii() and _LF not in text and _CR not in text:
        return text
    return one_line(utf8(text))


def _from_java(sequence: bytes) -> bytes:
    if len(sequence) == len(_JAVA_NUL):
        return b"\0"
    return sequence.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16").encode()


def loads_nearest(text: bytes | str) -> Any:
    """Return the decoded value, with an infinite float for a number out of range. Raises `JsonError`."""
    try:
        return loads(text)
    except NumberError:
        return _loads(text, parse_int=_nearest)


def loads_written(text: bytes | str) -> Any:
    """Return the decoded value with floats that keep their text, so that `dumps` writes the same text. Slow.

    Raises `JsonError`.
    """
    loads_nearest(text)  # checks more than the json module does
    return _loads(text, parse_int=_nearest, parse_float=_written)


def loads_exact(text: bytes) -> Any:
    """Return the decoded value; a decimal that a float cannot hold keeps its text, as in `loads_written`, but fast.

    Raises `JsonError`, `NumberError`.
    """
    value = loads(text)
    if _LONG_DECIMAL.search(text):
        try:
            return _decode_written(utf8(text))
        except _NOT_READ:  # nested too deep for msgspec
            return value
    return value


def is_json(text: bytes | str) -> bool:
    """Return True if `text` is JSON, with numbers of any size."""
    try:
        _decode_raw(text)
        if isinstance(text, bytes):
            text.decode()
    except (msgspec.MsgspecError, UnicodeError):
        return False
    except RecursionError:  # orjson decodes deeper nesting
        return _is_read(text)
    return True


def from_user_input(text: str) -> bytes:
    """Return user input as JSON: unchanged if it is JSON, else as a JSON string. Bytes that are no UTF-8 are U+FFFD."""
    if is_json(text):
        return text.strip().encode()
    return orjson.dumps(printable(text))


def dumps(value: Any, option: int = 0) -> bytes:
    """Encode `value`, with integers of any size. Raises `TypeError` if JSON cannot hold it, or `RecursionError`."""
    option |= orjson.OPT_PASSTHROUGH_DATACLASS
    try:
        return orjson.dumps(value, _plain, option)
    except TypeError:
        return orjson.dumps(exact(value), _plain, option)


def _plain(value: Any) -> Any:
    """Return a dataclass as a dict. orjson's own way crashes over one with slots and a field that is not set."""
    if is_dataclass(value) and not isinstance(value, type):
        return _members_of(value)
    raise TypeError


def _members_of(value: Any) -> dict[str, Any]:
    """Return what orjson takes of a dataclass: the attributes that are set and do not begin with an underscore."""
    names = dict.fromkeys([*(field.name for field in fields(value)), *getattr(value, "__dict__", ())])
    return {name: getattr(value, name) for name in names if not name.startswith("_") and hasattr(value, name)}


def exact(value: Any) -> Any:
    """Return `value` with text in place of numbers that orjson would not write exactly. Raises `TypeError`."""
    match value:
        case Written():
            return orjson.Fragment(value.text)
        case int() if not _LEAST_INT <= value <= _MOST_INT:
            return orjson.Fragment(_digits(value))
        case dict():
            return {key: exact(each) for key, each in value.items()}
        case list() | tuple():
            return [exact(each) for each in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {name: exact(each) for name, each in _members_of(value).items()}
    return value


def one_line(text: bytes) -> bytes:
    """Return the same JSON without line breaks."""
    return compact(text) if _LF in text or _CR in text else text


def compact(text: bytes) -> bytes:
    """Return the same JSON without white space."""
    try:
        return msgspec.json.format(text, indent=-1)
    except RecursionError:
        # The text is nested too deep for msgspec. A line break in JSON is white space.
        return text.translate(_LINE_BREAKS_TO_SPACES).strip()


def pretty(text: bytes) -> bytes:
    """Return the same JSON, indented, with one member a line."""
    try:
        return msgspec.json.format(text, indent=2)
    except RecursionError:
        return text


def raw_elements(text: bytes) -> list[bytes]:
    """Return the text of each element of an array. Raises `JsonError`."""
    try:
        return [bytes(each) for each in _decode_elements(text)]
    except _NOT_READ as error:
        raise JsonError(str(error)) from None


def raw_members(text: bytes) -> dict[str, bytes]:
    """Return the text of each member of an object, by name. Raises `JsonError`."""
    try:
        return {key: bytes(each) for key, each in _decode_members(text).items()}
    except _NOT_READ as error:
        raise JsonError(str(error)) from None


class Written(float):
    """A float that keeps the text it was decoded from."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Decode `text`."""
        self = super().__new__(cls, text)
        self.text = text
        return self


def _written(text: str) -> float:
    value = float(text)
    return value if orjson.dumps(value) == text.encode() else Written(text)


_decode_written: Final = msgspec.json.Decoder(float_hook=_written).decode


def _nearest(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # more digits than Python's limit for int
        return Written(text)


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError as error:
        raise TypeError(str(error)) from None


def _decode_unusual(text: bytes | str) -> Any:
    """Decode a text that msgspec rejected: modified UTF-8 or deep nesting. Raises `JsonError`, `NumberError`."""
    if isinstance(text, bytes) and (usual := utf8(text)) != text:
        return loads(usual)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if is_json(text):
            raise NumberError(f"{error}") from None
        raise JsonError(f"{error}") from None
    # Only orjson decodes nesting this deep, and it changes large integers.
    if _LARGE.search(text if isinstance(text, bytes) else text.encode()):
        raise JsonError("it is nested too deep")
    return value


def _is_read(text: bytes | str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _loads(text: bytes | str, **parsers: Any) -> Any:
    try:
        return json.loads(text, **parsers)
    except ValueError as error:
        raise NumberError(f"{error}") from None
    except RecursionError:
        raise JsonError("it is nested too deep") from None


Step = str | int
_Change = tuple[int, int, bytes]

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^\s\[\]{},:\"]+")
_NESTED: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_QUOTE, _OBJECT, _ARRAY = b'"', b"{", b"["


class NoPlaceError(ValueError):
    """A path does not lead to a value that can be set. `step` fails; `kind` is the kind of value it was applied to.

    `size` is that value's number of elements, if it is a list.
    """

    def __init__(self, step: Step, kind: str, size: int = 0) -> None:
        super().__init__(f"there is no {step!r} in {kind}")
        self.step = step
        self.kind = kind
        self.size = size


def find(text: bytes, steps: Sequence[Step]) -> bytes | None:
    """Return the text of the value at path `steps`; None if there is none. Of equal names the last one counts."""
    start, end = _space(text, 0), len(text)
    for step in steps:
        places = [place for place in _members(text, start) if _is(place[0], step)]
        if not places:
            return None
        _, start, end = places[-1]
    return text[start:end].strip()


def put(text: bytes, steps: Sequence[Step], value: bytes) -> bytes:
    """Return `text` with JSON `value` at path `steps`; create missing objects. Raises `NoPlaceError`.

    All other text is unchanged, to the byte. `text` must be JSON. Members with the same name are all replaced, so that
    every reader sees the new value.
    """
    parts: list[bytes] = []
    done = 0
    for start, end, new in _changes(text, _space(text, 0), steps, value):
        parts += (text[done:start], new)
        done = end
    return b"".join([*parts, text[done:]])


def _changes(text: bytes, at: int, steps: Sequence[Step], value: bytes) -> Iterator[_Change]:
    step, *rest = steps
    places = list(_members(text, at))
    found = [(start, end) for key, start, end in places if _is(key, step)]
    if not found:
        last = places[-1][2] if places else at + 1
        yield last, last, _member(text, at, step, _made(rest, value), joint=b"," if places else b"")
    for start, end in found:
        if rest:
            yield from _changes(text, start, rest, value)
        else:
            yield start, end, value


def _is(key: Step, step: Step) -> bool:
    return key == step or (isinstance(key, int) and str(key) == step)


def _member(text: bytes, at: int, step: Step, value: bytes, *, joint: bytes) -> bytes:
    """Return the text of a new member for the object at `at`."""
    if text[at : at + 1] != _OBJECT or not isinstance(step, str):
        kind = {_OBJECT: "an object", _ARRAY: "a list"}.get(text[at : at + 1], "no object and no list")
        raise NoPlaceError(step, kind, sum(1 for _ in _members(text, at)))
    return b"%b%b:%b" % (joint, orjson.dumps(step), value)


def _made(steps: Sequence[Step], value: bytes) -> bytes:
    """Return `value` inside nested objects, one a step."""
    for step in reversed(steps):
        if not isinstance(step, str):
            raise NoPlaceError(step, "an object")
        value = b"{%b:%b}" % (orjson.dumps(step), value)
    return value


def _members(text: bytes, at: int) -> Iterator[tuple[Step, int, int]]:
    """Yield the key or index, the start and the end of each value in the object or list at `at`."""
    opening = text[at : at + 1]
    if opening not in {_OBJECT, _ARRAY}:
        return
    at = _space(text, at + 1)
    index = 0
    while text[at : at + 1] not in {b"}", b"]"}:
        key: Step = index
        if opening == _OBJECT:
            end = _end(text, at)
            key = orjson.loads(text[at:end])
            at = _space(text, _space(text, end) + len(":"))
        end = _end(text, at)
        yield key, at, end
        index += 1
        at = _space(text, end)
        if text[at : at + 1] == b",":
            at = _space(text, at + 1)


def _space(text: bytes, at: int) -> int:
    """Return the end of the white space at `at`."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _end(text: bytes, at: int) -> int:
    """Return the end of the value at `at`."""
    first = text[at : at + 1]
    if first in {_OBJECT, _ARRAY}:
        depth = 0
        for match in _NESTED.finditer(text, at):
            depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(match[0], 0)
            if depth == 0:
                return match.end()
    match_ = (_STRING if first == _QUOTE else _SCALAR).match(text, at)
    return match_.end() if match_ else len(text)
