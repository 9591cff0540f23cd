"""Places in a JSON text: what stands there, and another value put there. All else keeps its text, to the byte.

The text must be JSON already. Of members with the same name the last one is found, as readers do, and each is replaced,
so that all readers see the new value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import orjson

Step = str | int
_Change = tuple[int, int, bytes]

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^\s\[\]{},:\"]+")
_NESTED: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_QUOTE, _OBJECT, _ARRAY = b'"', b"{", b"["


class NoPlaceError(ValueError):
    """There is nothing to put a value into. `step` is the one that leads nowhere; `kind` is what it was looked up in.

    `size` is the number of elements of a list.
    """

    def __init__(self, step: Step, kind: str, size: int = 0) -> None:
        super().__init__(f"there is no {step!r} in {kind}")
        self.step = step
        self.kind = kind
        self.size = size


def find(text: bytes, steps: Sequence[Step]) -> bytes | None:
    """Return the text of the value at `steps`, None where there is none."""
    start, end = _space(text, 0), len(text)
    for step in steps:
        places = [place for place in _members(text, start) if _is(place[0], step)]
        if not places:
            return None
        _, start, end = places[-1]
    return text[start:end].strip()


def put(text: bytes, steps: Sequence[Step], value: bytes) -> bytes:
    """Return `text` with `value`, which is JSON, at `steps`. Objects on the way are made. Raises `NoPlaceError`."""
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
    """Return a new member for the object at `at`."""
    if text[at : at + 1] != _OBJECT or not isinstance(step, str):
        kind = {_OBJECT: "an object", _ARRAY: "a list"}.get(text[at : at + 1], "no object and no list")
        raise NoPlaceError(step, kind, sum(1 for _ in _members(text, at)))
    return b"%b%b:%b" % (joint, orjson.dumps(step), value)


def _made(steps: Sequence[Step], value: bytes) -> bytes:
    """Return objects, each in the one before, around `value`."""
    for step in reversed(steps):
        if not isinstance(step, str):
            raise NoPlaceError(step, "an object")
        value = b"{%b:%b}" % (orjson.dumps(step), value)
    return value


def _members(text: bytes, at: int) -> Iterator[tuple[Step, int, int]]:
    """Yield the key or index, the start and the end of each value in what begins at `at`; nothing of a scalar."""
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
    """Return where the white space at `at` ends."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _end(text: bytes, at: int) -> int:
    """Return where the value at `at` ends."""
    first = text[at : at + 1]
    if first in {_OBJECT, _ARRAY}:
        depth = 0
        for match in _NESTED.finditer(text, at):
            depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(match[0], 0)
            if depth == 0:
                return match.end()
    match_ = (_STRING if first == _QUOTE else _SCALAR).match(text, at)
    return match_.end() if match_ else len(text)
