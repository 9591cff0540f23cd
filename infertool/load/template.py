"""Templates of bodies: a JSON document whose assigned fields are filled for each event (`--set`)."""

from __future__ import annotations

import itertools
import random
import re
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infertool.errors import UsageError
from infertool.text import json_text
from infertool.text.input import did_you_mean

# Returns the field's value as JSON; the argument is the event's number.
Fill = Callable[[int], bytes]
_Maker = Callable[[Sequence[str], random.Random], Fill]

_CALL: Final = re.compile(r"([A-Za-z_]\w*)\((.*)\)", re.DOTALL)
_LETTERS: Final = string.ascii_lowercase + " "
# Length of the random text made in advance; each text field is a piece of it.
_TEXT_POOL: Final = 65_536
_LONGEST_TEXT: Final = 1_000_000
_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]", re.ASCII)
_PATH: Final = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d{1,9}\])*", re.ASCII)


def parse_function(text: str, rng: random.Random) -> Fill | None:
    """Return the function that `text` calls; None if it is not a call. Raises UsageError."""
    match = _CALL.fullmatch(text.strip())
    if match is None:
        return None
    name, inside = match[1], match[2].strip()
    if name not in _MAKERS:
        advice = did_you_mean(name, _MAKERS) or f"known: {', '.join(_MAKERS)}"
        raise UsageError(f"there is no function {name}", advice=advice)
    usage, maker = _MAKERS[name]
    try:
        return maker([part.strip() for part in inside.split(",")] if inside else [], rng)
    except (ValueError, TypeError):
        raise UsageError(f"{text!r} cannot be called so", advice=f"write {usage}") from None


def _sequence(arguments: Sequence[str], _rng: random.Random) -> Fill:
    _none(arguments)
    return lambda number: b"%d" % number


def _uuid(arguments: Sequence[str], rng: random.Random) -> Fill:
    _none(arguments)
    return lambda _number: b'"%b"' % uuid4(rng).encode()


def uuid4(rng: random.Random) -> str:
    """Return a random UUID (version 4) as text."""
    bits = rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _now(arguments: Sequence[str], _rng: random.Random) -> Fill:
    _none(arguments)
    return lambda _number: b"%.6f" % time.time()


def _int(arguments: Sequence[str], rng: random.Random) -> Fill:
    low, high = map(int, arguments)
    if low > high:
        raise ValueError(low)
    return lambda _number: b"%d" % rng.randint(low, high)


def _float(arguments: Sequence[str], rng: random.Random) -> Fill:
    low, high = map(_finite, arguments)
    return lambda _number: b"%.6f" % rng.uniform(low, high)


def _normal(arguments: Sequence[str], rng: random.Random) -> Fill:
    mean, deviation = map(_finite, arguments)
    if deviation < 0:
        raise ValueError(deviation)
    return lambda _number: b"%.6f" % rng.gauss(mean, deviation)


def _choice(arguments: Sequence[str], rng: random.Random) -> Fill:
    values = [as_json(argument) for argument in arguments]
    if not values:
        raise ValueError(arguments)
    return lambda _number: rng.choice(values)


def _counter(arguments: Sequence[str], _rng: random.Random) -> Fill:
    counter = itertools.count(*_start_and_step(*map(int, arguments)))
    return lambda _number: b"%d" % next(counter)


def _start_and_step(start: int = 0, step: int = 1) -> tuple[int, int]:
    return start, step


def _text(arguments: Sequence[str], rng: random.Random) -> Fill:
    (length,) = map(int, arguments)
    if not 0 <= length <= _LONGEST_TEXT:
        raise ValueError(length)
    pool = "".join(rng.choices(_LETTERS, k=_TEXT_POOL)).encode()
    pool *= 1 + length // _TEXT_POOL

    def fill(_number: int) -> bytes:
        start = rng.randrange(len(pool) - length + 1)
        return b'"%b"' % pool[start : start + length]

    return fill


def as_json(text: str) -> bytes:
    """Return `text` unchanged if it is JSON, else as a JSON string."""
    return json_text.one_line(json_text.from_user_input(text))


def _none(arguments: Sequence[str]) -> None:
    if arguments:
        raise ValueError(arguments)


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError(text)
    return value


_MAKERS: Mapping[str, tuple[str, _Maker]] = {
    "sequence": ("sequence(), the number of the event", _sequence),
    "uuid": ("uuid()", _uuid),
    "now": ("now(), wall-clock seconds", _now),
    "int": ("int(1,6)", _int),
    "float": ("float(0,1)", _float),
    "normal": ("normal(0,1): mean and standard deviation", _normal),
    "choice": ("choice(a,b,c)", _choice),
    "counter": ("counter(), counter(100) or counter(100,5): start and step", _counter),
    "text": ("text(40), a length of at most 1000000", _text),
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """An assignment `path=value`. `fill` makes the value."""

    path: str
    fill: Fill

    def steps(self) -> list[str | int]:
        """Return the path as keys and indexes."""
        return [int(index) if index else key for key, index in _STEP.findall(self.path)]


def assignment(text: str, rng: random.Random) -> Assignment:
    """Return the assignment of `--set`. The value is a function call, JSON, or else a string. Raises UsageError."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not _PATH.fullmatch(path):
        raise UsageError(f"--set {text!r} is no assignment", advice="write for example 'features[0]=normal(0,1)'")
    try:
        fill = parse_function(value, rng)
    except UsageError as error:
        raise UsageError(f"--set {path}: {error.what}", advice=error.advice) from None
    if fill is None:
        constant = as_json(value)
        return Assignment(path, lambda _number: constant)
    return Assignment(path, fill)


class Template:
    """A JSON document with `assignments`. Raises UsageError for one that does not fit the document."""

    def __init__(self, document: bytes, assignments: Sequence[Assignment]) -> None:
        mark = secrets.token_hex(8)
        for index, assigned in enumerate(assignments):
            document = _put(document, assigned, f'"{mark}{index}."'.encode())
        # Constant and filled pieces alternate; a later assignment may have replaced the place of an earlier one.
        pieces = re.split(rf'"{mark}(\d+)\."'.encode(), document)
        self._constant = pieces[0::2]
        self._fills = [assignments[int(index)].fill for index in pieces[1::2]]

    def body(self, number: int) -> bytes:
        """Return the document for event `number`, as JSON."""
        parts = [self._constant[0]]
        for fill, constant in zip(self._fills, self._constant[1:], strict=True):
            parts += (fill(number), constant)
        return b"".join(parts)


def _put(document: bytes, assigned: Assignment, mark: bytes) -> bytes:
    try:
        return json_text.put(document, assigned.steps(), mark)
    except json_text.NoPlaceError as fault:
        where = f"--set {assigned.path}"
        if fault.kind == "a list" and isinstance(fault.step, int):
            advice = f"the list has {fault.size} elements"
            raise UsageError(f"{where}: there is no element {fault.step}", advice=advice) from None
        what = f"{where}: what {fault.step!r} is looked for in is {fault.kind}"
        raise UsageError(what, advice="look at the payload") from None
