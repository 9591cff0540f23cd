"""The functions that fill fields of an event: `normal(0,1)`, `choice(a,b)`, `uuid()`, ..."""

from __future__ import annotations

import itertools
import random
import re
import string
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from infertool import json_text
from infertool.errors import UsageError
from infertool.nearest import did_you_mean

# Takes an event's number, and returns the field's value as JSON.
Fill = Callable[[int], bytes]
_Maker = Callable[[Sequence[str], random.Random], Fill]

_CALL: Final = re.compile(r"([A-Za-z_]\w*)\((.*)\)", re.DOTALL)
_LETTERS: Final = string.ascii_lowercase + " "
# Of random text so much is made once; each field of text is a piece of it.
_TEXT_POOL: Final = 65_536
_LONGEST_TEXT: Final = 1_000_000


def parse(text: str, rng: random.Random) -> Fill | None:
    """Return the function that `text` calls, None when it is no call. Raises UsageError."""
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
    """Return a random UUID (version 4), as text."""
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
    values = [json_of(argument) for argument in arguments]
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


def json_of(text: str) -> bytes:
    """Return `text` as JSON: itself where it is JSON, else a string."""
    return json_text.one_line(json_text.of_words(text))


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
