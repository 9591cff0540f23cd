"""How large events are: `--size 400`, `--size 'normal(400,100)'`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from infertool.errors import UsageError
from infertool.load import functions

Size = Callable[[int], int]
_LARGEST: Final = 100 * 1024 * 1024
_HEAD, _TAIL = b'"padding":"', b'"}'


def parse(text: str, rng: random.Random) -> Size:
    """Return what gives event `number` its size in bytes. Raises UsageError."""
    advice = "write bytes, for example --size 400, or a function: normal(400,100), int(100,1000), choice(200,2000)"
    try:
        fill = functions.parse(text, rng)
        size = float(text if fill is None else fill(0))
    except (UsageError, ValueError) as error:
        what = error.what if isinstance(error, UsageError) else "is no size"
        raise UsageError(f"--size {text!r}: {what}", advice=advice) from None
    if fill is not None:
        return lambda number: min(int(float(fill(number))), _LARGEST)
    if not 0 < size <= _LARGEST:
        raise UsageError(f"--size {text!r} is out of range", advice=f"a body has 1 to {_LARGEST} bytes")
    return lambda _number: int(size)


def padded(body: bytes, size: int) -> bytes:
    """Return the JSON object `body` with a field `padding` that makes it `size` bytes, itself where it is as large."""
    joint = b"" if body == b"{}" else b","
    missing = size - len(body) - len(joint) - len(_HEAD) - 1
    if missing < 0:
        return body
    return b"".join((body[:-1], joint, _HEAD, b"x" * missing, _TAIL))
